//! Text that cannot be markup. In: any text. Out: the same, for element contents and quoted attributes.

use std::fmt::{self, Write};

use crate::units::harmless;

/// Text from a dump, a binary or a source file. Tabs stay what they are.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\t' => f.write_char(c)?,
                c => f.write_char(harmless(c))?,
            }
        }
        Ok(())
    }
}

/// A path of names that may be broken where a reader would, and nowhere else unless it must.
pub(super) struct Breakable<'a>(pub(super) &'a str);

impl fmt::Display for Breakable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive("::") {
            write!(f, "{}", Escaped(part))?;
            if part.ends_with("::") {
                f.write_str("<wbr>")?;
            }
        }
        Ok(())
    }
}

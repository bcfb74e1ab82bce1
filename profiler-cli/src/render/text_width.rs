//! The width of text on a terminal, and texts that are cut to fit. In: a number of columns. Out:
//! shorter texts. A cut is marked with `…`.

use std::io::{self, Write};

/// The number of columns that a text may have; by default it may have any number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextWidth(Option<usize>);

impl TextWidth {
    /// Returns the width of a terminal with so many columns. Narrow terminals count as having 40.
    pub fn of_columns(columns: usize) -> TextWidth {
        TextWidth(Some(columns.max(NARROWEST)))
    }

    /// Returns the number of columns.
    pub fn columns(self) -> usize {
        self.0.unwrap_or(usize::MAX)
    }
}

/// Fewer columns are not worth a layout of their own.
const NARROWEST: usize = 40;

/// Cuts out the middle of a name, because both its ends tell what it is. What is left of its end
/// begins with a whole segment, if one fits.
///
/// ```
/// use profiler_cli::render::text_width::cut_middle;
/// assert_eq!(cut_middle("shop::cart::Cart::add", 14), "shop::ca…::add");
/// assert_eq!(cut_middle("shop::cart::Cart::add", 20), "shop::ca…::Cart::add");
/// assert_eq!(cut_middle("shop::cart::recalculate", 16), "sh…::recalculate");
/// assert_eq!(cut_middle("shop::recalculate", 12), "shop:…culate");
/// assert_eq!(cut_middle("shop::cart", 12), "shop::cart");
/// ```
pub fn cut_middle(name: &str, most: usize) -> String {
    let length = |text: &str| text.chars().count();
    if length(name) <= most {
        return name.to_owned();
    }
    let kept = most.saturating_sub(1);
    let segments: Vec<usize> = name.match_indices("::").map(|(at, _)| length(&name[at..])).collect();
    let of_both_ends = segments.iter().copied().find(|tail| *tail <= kept * 3 / 5);
    let last = segments.last().copied().filter(|tail| *tail <= kept);
    let tail = of_both_ends.or(last).unwrap_or(kept.div_ceil(2));
    let head: String = name.chars().take(kept - tail).collect();
    let tail: String = name.chars().skip(length(name) - tail).collect();
    format!("{head}…{tail}")
}

/// Cuts off the end of a text.
///
/// ```
/// use profiler_cli::render::text_width::cut_end;
/// assert_eq!(cut_end("let total = sum(&items);", 12), "let total =…");
/// assert_eq!(cut_end("let total;", 12), "let total;");
/// ```
pub fn cut_end(text: &str, most: usize) -> String {
    match text.chars().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// Cuts off the beginning of a path, because its end tells the file and the line.
///
/// ```
/// use profiler_cli::render::text_width::cut_path;
/// assert_eq!(cut_path("crates/shop/src/cart.rs:12", 17), "…/src/cart.rs:12");
/// assert_eq!(cut_path("crates/shop/src/cart.rs:12", 11), "cart.rs:12");
/// assert_eq!(cut_path("crates/shop/src/cart.rs:12", 8), "…t.rs:12");
/// assert_eq!(cut_path("src/cart.rs:12", 20), "src/cart.rs:12");
/// ```
pub fn cut_path(path: &str, most: usize) -> String {
    let length = |text: &str| text.chars().count();
    if length(path) <= most {
        return path.to_owned();
    }
    let whole_parts = path.match_indices('/').map(|(at, _)| format!("…{}", &path[at..]));
    let file = path.rsplit('/').next().unwrap_or(path).to_owned();
    let tail = path.chars().skip(length(path) - most.saturating_sub(1));
    whole_parts
        .chain([file])
        .find(|text| length(text) <= most)
        .unwrap_or_else(|| ['…'].into_iter().chain(tail).collect())
}

/// Cuts a function and its position so that both fit into `room` columns: the position to half of
/// it at least, and the function to what is left.
///
/// ```
/// use profiler_cli::render::text_width::fitting_names;
/// let (function, position) = fitting_names("shop::cart::Cart::add", "src/cart.rs:12", 30);
/// assert_eq!((&*function, &*position), ("shop::cart…::add", "src/cart.rs:12"));
/// ```
pub fn fitting_names(function: &str, position: &str, room: usize) -> (String, String) {
    let position = cut_path(position, room.saturating_sub(function.chars().count()).max(room / 2));
    (cut_middle(function, room.saturating_sub(position.chars().count())), position)
}

/// Breaks a text between words into lines of at most `most` columns. A longer word is a line.
///
/// ```
/// use profiler_cli::render::text_width::wrapped;
/// assert_eq!(wrapped("a block that is freed", 10), ["a block", "that is", "freed"]);
/// ```
pub fn wrapped(text: &str, most: usize) -> Vec<String> {
    let length = |text: &str| text.chars().count();
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if length(line) + 1 + length(word) <= most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Writes a text behind `first`, in lines that fit. They begin below one another.
///
/// # Errors
/// Returns the first error of `out`.
pub(super) fn write_paragraph(
    out: &mut dyn Write,
    first: &str,
    text: &str,
    width: TextWidth,
) -> io::Result<()> {
    let margin = first.chars().count();
    for (number, line) in wrapped(text, width.columns().saturating_sub(margin)).iter().enumerate() {
        let before = if number == 0 { first } else { "" };
        writeln!(out, "{before:margin$}{line}")?;
    }
    Ok(())
}

//! The bounds of a budget. In: `key = value` pairs. Out: numbers, or an error at the tokens that
//! are to blame.

use proc_macro2::TokenStream;
use quote::quote_spanned;
use syn::parse::{Parse, ParseStream};
use syn::{Error, Ident, Lit, LitInt, LitStr, Token};

use crate::budget::hygienic;

/// The bounds of a budget, in the order of [`KEYS`].
#[derive(Debug)]
pub(crate) struct Bounds {
    values: [Option<u64>; KEYS.len()],
    all_threads: bool,
}

/// A bound, and whether it is one of bytes.
const KEYS: [(&str, bool); 5] =
    [("allocations", false), ("reallocations", false), ("allocated", true), ("peak", true), ("leaked", true)];
const THREADS: &str = "threads";

impl Parse for Bounds {
    /// Parses pairs with commas between them, up to a semicolon or the end.
    fn parse(input: ParseStream<'_>) -> Result<Bounds, Error> {
        let mut bounds = Bounds { values: [None; KEYS.len()], all_threads: false };
        let start = input.span();
        while !input.is_empty() && !input.peek(Token![;]) {
            let key: Ident = input.parse()?;
            let index = KEYS.iter().position(|(name, _)| key == name);
            if index.is_none() && key != THREADS {
                return Err(Error::new(key.span(), unknown(&key.to_string())));
            }
            input.parse::<Token![=]>()?;
            let is_again = match index {
                Some(index) => bounds.values[index].replace(amount(input, KEYS[index])?).is_some(),
                None => {
                    let text: Option<LitStr> = input.parse()?;
                    if text.is_none_or(|text| text.value() != "all") {
                        return Err(Error::new(key.span(), "`threads` can be \"all\" only"));
                    }
                    std::mem::replace(&mut bounds.all_threads, true)
                }
            };
            if is_again {
                return Err(Error::new(key.span(), format!("`{key}` is given twice")));
            }
            if !input.is_empty() && !input.peek(Token![;]) {
                input.parse::<Token![,]>()?;
            }
        }
        if bounds.values.iter().all(Option::is_none) {
            return Err(Error::new(start, format!("a budget needs a bound: {}", bounds_list())));
        }
        Ok(bounds)
    }
}

impl Bounds {
    /// Returns an expression of the bounds.
    pub(crate) fn to_expression(&self) -> TokenStream {
        let names = KEYS.iter().map(|(name, _)| Ident::new(name, hygienic()));
        let values = self.values.iter().map(|value| match value {
            Some(value) => quote_spanned!(hygienic()=> ::core::option::Option::Some(#value)),
            None => quote_spanned!(hygienic()=> ::core::option::Option::None),
        });
        let all_threads = self.all_threads;
        quote_spanned! {hygienic()=>
            ::alloc_tracker::__private::BudgetBounds { #(#names: #values,)* all_threads: #all_threads }
        }
    }
}

/// Parses an integer, or for bytes a size.
fn amount(input: ParseStream<'_>, (key, is_bytes): (&str, bool)) -> Result<u64, Error> {
    let wanted = match is_bytes {
        true => format!("`{key}` is in bytes: give an integer or a size such as \"64KiB\""),
        false => format!("`{key}` is a count: give an integer"),
    };
    if !input.peek(Lit) {
        return Err(input.error(wanted));
    }
    match input.parse()? {
        Lit::Int(number) => number_of(&number, &wanted),
        Lit::Str(text) if is_bytes => size(&text.value()).ok_or_else(|| Error::new(text.span(), wanted)),
        other => Err(Error::new(other.span(), wanted)),
    }
}

fn number_of(integer: &LitInt, wanted: &str) -> Result<u64, Error> {
    if !integer.suffix().is_empty() {
        return Err(Error::new(integer.span(), "a bound has no type: give an integer without suffix"));
    }
    integer.base10_parse().map_err(|_| Error::new(integer.span(), wanted))
}

/// Returns the bytes of a size, which must be whole.
fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    let number = number.replace('_', "");
    let Some((whole, fraction)) = number.split_once('.') else {
        return number.parse::<u64>().ok()?.checked_mul(unit);
    };
    let scale = 10u64.checked_pow(fraction.len().try_into().ok()?)?;
    let parts = whole.parse::<u64>().ok()?.checked_mul(scale)?.checked_add(fraction.parse().ok()?)?;
    let bytes = u128::from(parts) * u128::from(unit);
    bytes.is_multiple_of(scale.into()).then(|| u64::try_from(bytes / u128::from(scale)).ok())?
}

/// Returns what is wrong with a key that does not exist.
fn unknown(key: &str) -> String {
    let names = KEYS.iter().map(|(name, _)| *name).chain([THREADS]);
    // The beginning of a name means that name, whichever else is as near.
    let distance_of = |name: &str| if name.starts_with(key) { 0 } else { distance(key, name) };
    let nearest = names.map(|name| (distance_of(name), name)).min();
    match nearest {
        Some((distance, name)) if distance <= name.len() / 3 => {
            format!("unknown key `{key}`: did you mean `{name}`? There are {}", list())
        }
        _ => format!("unknown key `{key}`: there are {}", list()),
    }
}

fn list() -> String {
    format!("{} and `{THREADS}`", bounds_list())
}

fn bounds_list() -> String {
    KEYS.map(|(name, _)| format!("`{name}`")).join(", ")
}

/// Returns how many letters must be inserted, removed or replaced to make one word the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_bytes() {
        let sizes = [
            ("0", Some(0)),
            ("64KiB", Some(65_536)),
            ("1 MiB", Some(1 << 20)),
            ("1.5KiB", Some(1536)),
            ("1_000B", Some(1000)),
            ("0.3KiB", None),
            ("0.75 B", None),
            ("64KB", None),
            ("", None),
            ("-1", None),
            ("99999999TiB", None),
        ];
        for (text, bytes) in sizes {
            assert_eq!(size(text), bytes, "{text}");
        }
    }

    #[test]
    fn an_unknown_key_is_told_the_nearest_one() {
        assert!(unknown("alocations").contains("did you mean `allocations`?"));
        assert!(unknown("leak").contains("did you mean `leaked`?"));
        assert!(unknown("p").contains("did you mean `peak`?"));
        assert!(unknown("speed").starts_with("unknown key `speed`: there are `allocations`, "));
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}

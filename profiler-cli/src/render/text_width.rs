//! The width of text on a terminal, and texts that are cut to fit. In: a number of columns. Out:
//! shorter texts. A cut is marked with `…`.

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

/// Cuts out the middle of a name, because both its ends tell what it is.
///
/// ```
/// use profiler_cli::render::text_width::cut_middle;
/// assert_eq!(cut_middle("shop::cart::Cart::add", 12), "shop:…t::add");
/// assert_eq!(cut_middle("shop::cart", 12), "shop::cart");
/// ```
pub fn cut_middle(name: &str, most: usize) -> String {
    let length = name.chars().count();
    if length <= most {
        return name.to_owned();
    }
    let kept = most.saturating_sub(1);
    let tail = kept.div_ceil(2);
    let head: String = name.chars().take(kept - tail).collect();
    let tail: String = name.chars().skip(length - tail).collect();
    format!("{head}…{tail}")
}

/// Cuts off the beginning of a path, because its end tells the file and the line.
///
/// ```
/// use profiler_cli::render::text_width::cut_path;
/// assert_eq!(cut_path("crates/shop/src/cart.rs:12", 12), "…/cart.rs:12");
/// assert_eq!(cut_path("src/cart.rs:12", 20), "src/cart.rs:12");
/// ```
pub fn cut_path(path: &str, most: usize) -> String {
    let length = path.chars().count();
    if length <= most {
        return path.to_owned();
    }
    let tail: String = path.chars().skip(length - most.saturating_sub(1)).collect();
    // A whole part of the path reads better than a piece of one.
    let whole = tail.find('/').filter(|at| *at > 0 && tail.len() - at > tail.len() / 2);
    format!("…{}", &tail[whole.unwrap_or(0)..])
}

/// Cuts a function and its position so that both fit into `room` columns: the position to half of
/// it at least, and the function to what is left.
///
/// ```
/// use profiler_cli::render::text_width::fitting_names;
/// let (function, position) = fitting_names("shop::cart::Cart::add", "src/cart.rs:12", 30);
/// assert_eq!((&*function, &*position), ("shop::c…art::add", "src/cart.rs:12"));
/// ```
pub fn fitting_names(function: &str, position: &str, room: usize) -> (String, String) {
    let position = cut_path(position, room.saturating_sub(function.chars().count()).max(room / 2));
    (cut_middle(function, room.saturating_sub(position.chars().count())), position)
}

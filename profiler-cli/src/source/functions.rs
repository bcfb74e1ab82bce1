//! The functions that are written in a source file, and the items that generate others. In: text,
//! which is not trusted. Out: lines. Text that does not parse, or nests too deep to be parsed, has
//! none.

use syn::spanned::Spanned;
use syn::visit::Visit;

/// The lines of a function in its file, from its signature to its closing brace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionExtent {
    /// Name of the function, without path.
    pub name: String,
    /// Line of the first attribute; equal to `start` if there is no attribute.
    first_attribute: u32,
    /// Line of the signature; the first line of a file is 1.
    pub start: u32,
    /// Line of the closing brace.
    pub end: u32,
}

impl FunctionExtent {
    /// Returns the lines of the function and of its attributes.
    pub(super) fn with_attributes(&self) -> LineRange {
        LineRange { first: self.first_attribute, last: self.end }
    }
}

/// Lines from the first to the last, both included.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineRange {
    pub(super) first: u32,
    pub(super) last: u32,
}

impl LineRange {
    /// Whether this range contains all lines of the other range.
    pub(super) fn contains(self, other: LineRange) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

/// The functions in a text, and the items that may generate more functions.
#[derive(Default)]
pub(super) struct WrittenFunctions {
    pub(super) functions: Vec<FunctionExtent>,
    /// Items from which the compiler may generate functions that are not in the text.
    pub(super) generators: Vec<LineRange>,
}

impl WrittenFunctions {
    /// Finds the functions of a text whose length the caller has bounded.
    ///
    /// Parses on a thread of its own, with a stack that grows with the text: chains of calls and of
    /// operators (`a.b().c()`, `1 + 1 + 1`) nest in the parser's tree without any bracket in the
    /// text. The kernel provides only those pages of the stack that the parser touches.
    pub(super) fn in_text(text: &str) -> WrittenFunctions {
        if nesting(text) > MAX_NESTING {
            return WrittenFunctions::default();
        }
        let parse = || {
            let mut written = WrittenFunctions::default();
            if let Ok(file) = syn::parse_file(text) {
                written.visit_file(&file);
            }
            written
        };
        let links = text.bytes().filter(|byte| b"<&*!-|.+/%^=?".contains(byte)).count();
        let stack = PARSER_STACK + links * STACK_PER_LINK;
        std::thread::scope(|scope| {
            let parser = std::thread::Builder::new().stack_size(stack).spawn_scoped(scope, parse);
            parser.ok().and_then(|parser| parser.join().ok()).unwrap_or_default()
        })
    }
}

const PARSER_STACK: usize = 16 << 20;
/// Bytes of stack that parsing, visiting and dropping take for each link of a chain, with room to
/// spare.
const STACK_PER_LINK: usize = 4 << 10;
/// The deepest nesting that is parsed. It bounds the recursion of the parser, so that no text
/// overflows the parser's stack.
const MAX_NESTING: usize = 256;

/// Returns the deepest nesting of brackets, and of operators that nest without brackets (`&&&x`,
/// `!!x`, `a<a<a<…`). Characters in strings and comments count too. So some harmless texts are
/// refused, but no harmful text is accepted.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest, mut unclosed) = (0usize, 0, 0usize);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'<' | b'&' | b'*' | b'!' | b'-' | b'|' => unclosed += 1,
            b';' | b',' | b'\n' => unclosed = 0,
            _ => {}
        }
        deepest = deepest.max(depth + unclosed);
    }
    deepest
}

impl WrittenFunctions {
    fn add_function(
        &mut self,
        name: &syn::Ident,
        attributes: &[syn::Attribute],
        head: proc_macro2::Span,
        block: &syn::Block,
    ) {
        let (start, end) = (head.start().line as u32, block.brace_token.span.close().end().line as u32);
        let first_attribute =
            attributes.first().map_or(start, |attribute| attribute.span().start().line as u32);
        self.functions.push(FunctionExtent { name: name.to_string(), first_attribute, start, end });
    }

    fn add_generator(&mut self, tokens: &impl Spanned) {
        let span = tokens.span();
        self.generators.push(LineRange { first: span.start().line as u32, last: span.end().line as u32 });
    }
}

impl<'ast> Visit<'ast> for WrittenFunctions {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add_function(&item.sig.ident, &item.attrs, first_span(&item.vis, &item.sig), &item.block);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add_function(&item.sig.ident, &item.attrs, first_span(&item.vis, &item.sig), &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.add_function(&item.sig.ident, &item.attrs, item.sig.span(), block);
        }
        syn::visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.add_generator(item);
        syn::visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.add_generator(item);
        syn::visit::visit_item_enum(self, item);
    }

    fn visit_item_union(&mut self, item: &'ast syn::ItemUnion) {
        self.add_generator(item);
        syn::visit::visit_item_union(self, item);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        self.add_generator(attribute);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.add_generator(called);
    }

    fn visit_item_macro(&mut self, item: &'ast syn::ItemMacro) {
        self.add_generator(item);
        syn::visit::visit_item_macro(self, item);
    }
}

/// Returns the span in which the head of a function begins: the visibility if the text has one,
/// else the signature.
fn first_span(visibility: &syn::Visibility, signature: &syn::Signature) -> proc_macro2::Span {
    match visibility {
        syn::Visibility::Inherited => signature.span(),
        written => written.span(),
    }
}

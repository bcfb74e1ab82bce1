//! A parser: `syn` reads a Rust source, and a visitor walks the whole tree.

use syn::visit::{self, Visit};

use super::source;

const FUNCTIONS: usize = 6;

pub(super) fn run(rounds: usize) -> u64 {
    let text = source::file(FUNCTIONS);
    (0..rounds).map(|_| round(&text)).sum()
}

fn round(text: &str) -> u64 {
    let tree = syn::parse_file(text).expect("our own source");
    let mut expressions = Expressions(0);
    expressions.visit_file(&tree);
    expressions.0
}

struct Expressions(u64);

impl<'ast> Visit<'ast> for Expressions {
    fn visit_expr(&mut self, expression: &'ast syn::Expr) {
        self.0 += 1;
        visit::visit_expr(self, expression);
    }
}

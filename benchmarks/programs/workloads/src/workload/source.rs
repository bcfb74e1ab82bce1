//! Writes a Rust source that is parsed and never compiled. It has what real sources have: items,
//! attributes, generics, matches, closures, method chains and macros, nested as deep as people nest
//! them.

use std::fmt::Write;

use crate::numbers::Numbers;

/// Returns the text of a file with so many functions.
pub(super) fn file(functions: usize) -> String {
    let mut text = Text { numbers: Numbers::new(2), written: String::new(), depth: 0 };
    text.put(
        "//! Nobody reads this.\n\nuse std::{collections::{BTreeMap, HashMap}, fmt::{self, Write as _}};\n\n",
    );
    for id in 0..functions {
        if id % 4 == 0 {
            text.structure(id / 4);
        }
        text.function(id);
    }
    text.written
}

struct Text {
    numbers: Numbers,
    written: String,
    depth: usize,
}

impl Text {
    fn structure(&mut self, id: usize) {
        self.put_format(format_args!(
            "/// Holds something.\n#[derive(Clone, Debug, PartialEq)]\npub struct Room{id}<'a, T: Clone + 'a> {{\n"
        ));
        for field in 0..2 + self.numbers.below(6) {
            let of =
                ["Vec<Option<T>>", "&'a str", "HashMap<String, (u32, T)>", "Box<dyn Fn(&T) -> bool + 'a>"]
                    [self.numbers.below(4)];
            self.put_format(format_args!("    pub(crate) field_{field}: {of},\n"));
        }
        self.put_format(format_args!(
            "}}\n\nimpl<'a, T: Clone + fmt::Display> fmt::Display for Room{id}<'a, T> where T: PartialEq {{\n    \
             fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {{ write!(f, \"{{}}\", self.field_1) }}\n}}\n\n"
        ));
    }

    fn function(&mut self, id: usize) {
        self.put_format(format_args!(
            "#[inline]\npub fn work_{id}<T, E>(first: &mut Vec<T>, second: BTreeMap<String, usize>, third: usize) \
             -> Result<Option<T>, E>\nwhere\n    T: Clone + Into<usize>,\n    E: From<fmt::Error>,\n"
        ));
        self.block(4 + id % 5);
        self.put("\n\n");
    }

    fn block(&mut self, statements: usize) {
        self.depth += 1;
        self.put("{");
        for statement in 0..statements {
            self.line();
            self.statement(statement);
        }
        self.line();
        self.expression(2);
        self.depth -= 1;
        self.line();
        self.put("}");
    }

    fn statement(&mut self, id: usize) {
        match if self.depth < 4 { self.numbers.below(7) } else { self.numbers.below(3) } {
            0 => {
                self.put_format(format_args!("let value_{id}: Vec<_> = "));
                self.expression(4);
                self.put(";");
            }
            1 => {
                self.put("first.push(");
                self.expression(3);
                self.put(");");
            }
            2 => self.put_format(format_args!("println!(\"{{}} of {{third:?}}\", value_{id}.len());")),
            3 => {
                self.put_format(format_args!("for (key, value_{id}) in &second "));
                self.block(2);
            }
            4 => {
                self.put("if third > 0 && ");
                self.expression(2);
                self.put(" ");
                self.block(2);
                self.put(" else ");
                self.block(1);
            }
            5 => {
                self.put("match third {");
                for arm in 0..3 {
                    self.put_format(format_args!(
                        "\n{:1$}{arm} | 1{arm} if first.is_empty() => ",
                        "",
                        self.depth * 4
                    ));
                    self.block(1);
                }
                self.put(" other => { return Err(fmt::Error.into()); } }");
            }
            _ => {
                self.put("let Some(found) = ");
                self.expression(3);
                self.put(" else ");
                self.block(0);
                self.put(";");
            }
        }
    }

    fn expression(&mut self, depth: usize) {
        if depth == 0 {
            let leaf =
                ["third", "\"some text\"", "42_usize", "self::LIMIT", "first[0]"][self.numbers.below(5)];
            return self.put(leaf);
        }
        match self.numbers.below(6) {
            0 => {
                self.put("(");
                self.expression(depth - 1);
                let operator = [" + ", " * ", " << ", " - "][self.numbers.below(4)];
                self.put(operator);
                self.expression(depth - 1);
                self.put(")");
            }
            1 => {
                self.put("first.iter().filter(|item| item.clone().into() > ");
                self.expression(depth - 1);
                self.put(").map(|item| ");
                self.expression(depth - 1);
                self.put(").collect::<Vec<_>>()");
            }
            2 => {
                self.put("second.get(&format!(\"{third}\")).copied().unwrap_or(");
                self.expression(depth - 1);
                self.put(")?");
            }
            3 => {
                self.put("Some((");
                self.expression(depth - 1);
                self.put(", &mut ");
                self.expression(depth - 1);
                self.put(" as *mut _))");
            }
            4 => {
                self.put("std::mem::take::<Vec<T>>(");
                self.expression(depth - 1);
                self.put(")");
            }
            _ => {
                self.put("[");
                self.expression(depth - 1);
                self.put(", -1, !0]");
            }
        }
    }

    fn line(&mut self) {
        self.put_format(format_args!("\n{:1$}", "", self.depth * 4));
    }

    fn put(&mut self, text: &str) {
        self.written.push_str(text);
    }

    fn put_format(&mut self, text: std::fmt::Arguments<'_>) {
        self.written.write_fmt(text).expect("a String takes all that is written");
    }
}

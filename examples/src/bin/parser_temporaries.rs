//! A calculator by recursive descent that copies every token into a `String` of its own, looks at
//! it and throws it away.
//!
//! What a profile must show:
//!
//! - `TOKENS * STATEMENTS` = 56,000 allocations of together `TOKEN_BYTES * STATEMENTS` = 68,000
//!   bytes from the line marked `PLANTED: temporaries` in `next_token`. Every one of them is
//!   temporary: freed before the thread allocates again. They are nearly all allocations of the
//!   program and nearly none of its peak.
//! - The peak is the program text, one block of `STATEMENTS * STATEMENT.len()` bytes from the line
//!   marked `PLANTED: peak`. Nothing leaks.
//!
//! With `rounds` as first argument, the text is read `rounds` times.
#![forbid(unsafe_code)]

#[cfg(not(feature = "oracle"))]
#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

/// The text repeats this statement: `TOKENS` tokens of together `TOKEN_BYTES` bytes, between
/// spaces.
const STATEMENT: &str = "17 + 25 * ( 3 + 4 ) - 60 / 5 ;\n";
const STATEMENTS: usize = 4000;
const TOKENS: usize = 14;
const TOKEN_BYTES: usize = 17;
const STATEMENT_VALUE: i64 = 17 + 25 * (3 + 4) - 60 / 5;

fn main() {
    examples::begin();
    let rounds = examples::rounds();
    assert_eq!(STATEMENT.split_whitespace().count(), TOKENS);
    assert_eq!(STATEMENT.split_whitespace().map(str::len).sum::<usize>(), TOKEN_BYTES);

    let text = program();
    for _ in 0..rounds {
        assert_eq!(evaluate(&text), STATEMENT_VALUE * STATEMENTS as i64);
    }
    println!("{STATEMENTS} statements of {TOKENS} tokens evaluated {rounds} times");
}

#[inline(never)]
fn program() -> String {
    let mut text = String::with_capacity(STATEMENTS * STATEMENT.len()); // PLANTED: peak
    for _ in 0..STATEMENTS {
        text.push_str(STATEMENT);
    }
    text
}

/// Returns the sum of the values of all statements.
#[inline(never)]
fn evaluate(text: &str) -> i64 {
    let mut parser = Parser { text, offset: 0, token: None };
    let mut total = 0;
    parser.next_token();
    while parser.token.is_some() {
        total += parser.sum();
        parser.expect(";");
    }
    total
}

/// Holds one token at a time, and frees it before reading the next one.
struct Parser<'a> {
    text: &'a str,
    /// Offset in `text` behind the token.
    offset: usize,
    token: Option<String>,
}

impl Parser<'_> {
    fn sum(&mut self) -> i64 {
        let mut value = self.product();
        loop {
            if self.take("+") {
                value += self.product();
            } else if self.take("-") {
                value -= self.product();
            } else {
                return value;
            }
        }
    }

    fn product(&mut self) -> i64 {
        let mut value = self.factor();
        loop {
            if self.take("*") {
                value *= self.factor();
            } else if self.take("/") {
                value /= self.factor();
            } else {
                return value;
            }
        }
    }

    fn factor(&mut self) -> i64 {
        if self.take("(") {
            let value = self.sum();
            self.expect(")");
            return value;
        }
        let number = self.token.as_deref().and_then(|token| token.parse().ok());
        self.next_token();
        number.expect("a number")
    }

    fn take(&mut self, symbol: &str) -> bool {
        let is_next = self.token.as_deref() == Some(symbol);
        if is_next {
            self.next_token();
        }
        is_next
    }

    fn expect(&mut self, symbol: &str) {
        assert!(self.take(symbol), "expected {symbol} before byte {}", self.offset);
    }

    #[inline(never)]
    fn next_token(&mut self) {
        self.token = None; // PLANTED: freed
        let rest = &self.text[self.offset..];
        let begin = rest.len() - rest.trim_start().len();
        let Some(word) = rest.split_whitespace().next() else { return };
        self.offset += begin + word.len();
        self.token = Some(word.to_owned()); // PLANTED: temporaries
    }
}

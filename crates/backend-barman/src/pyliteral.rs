//! The literals of Python that barman writes into backup.info: read with bounds, written so that Python reads the same.
//!
//! Strings, whole numbers, floats, `None`, booleans, lists, tuples and dictionaries, as `ast.literal_eval` takes them and
//! `repr` makes them. Nothing is ever evaluated.

/// How deep lists may be nested: what barman writes has four levels, and a hostile file must not end the process.
const DEEPEST: usize = 32;

/// A literal.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    None,
    Bool(bool),
    Whole(i128),
    Float(f64),
    Text(String),
    /// A list or a tuple.
    List(Vec<Literal>),
    Dict(Vec<(Literal, Literal)>),
}

impl Literal {
    /// Reads exactly one literal, with nothing behind it. The error says what was expected where.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader { text, at: 0 };
        let literal = reader.literal(0)?;
        reader.space();
        if reader.at == text.len() {
            Ok(literal)
        } else {
            Err(reader.expected("the end"))
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|c| c == ' ' || c == '\t') {
            self.at += 1;
        }
    }

    fn eat(&mut self, wanted: &str) -> bool {
        let there = self.rest().starts_with(wanted);
        if there {
            self.at += wanted.len();
        }
        there
    }

    fn expected(&self, what: &str) -> String {
        format!("{what} expected at byte {}", self.at)
    }

    fn literal(&mut self, depth: usize) -> Result<Literal, String> {
        if depth > DEEPEST {
            return Err(format!("nested deeper than {DEEPEST} levels"));
        }
        self.space();
        for (word, literal) in [
            ("None", Literal::None),
            ("True", Literal::Bool(true)),
            ("False", Literal::Bool(false)),
        ] {
            if self.eat(word) {
                return Ok(literal);
            }
        }
        match self.peek() {
            Some(quote @ ('\'' | '"')) => self.text(quote).map(Literal::Text),
            Some('[') => self.items("]", depth).map(Literal::List),
            Some('(') => self.items(")", depth).map(Literal::List),
            Some('{') => self.pairs(depth).map(Literal::Dict),
            Some(c) if c.is_ascii_digit() || c == '-' || c == '.' => self.number(),
            _ => Err(self.expected("a value")),
        }
    }

    fn items(&mut self, close: &str, depth: usize) -> Result<Vec<Literal>, String> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.space();
            if self.eat(close) {
                return Ok(items);
            }
            items.push(self.literal(depth + 1)?);
            self.comma(close)?;
        }
    }

    fn pairs(&mut self, depth: usize) -> Result<Vec<(Literal, Literal)>, String> {
        self.at += 1;
        let mut pairs = Vec::new();
        loop {
            self.space();
            if self.eat("}") {
                return Ok(pairs);
            }
            let key = self.literal(depth + 1)?;
            self.space();
            if !self.eat(":") {
                return Err(self.expected("`:`"));
            }
            pairs.push((key, self.literal(depth + 1)?));
            self.comma("}")?;
        }
    }

    fn comma(&mut self, close: &str) -> Result<(), String> {
        self.space();
        if self.eat(",") || self.rest().starts_with(close) {
            Ok(())
        } else {
            Err(self.expected("`,`"))
        }
    }

    fn number(&mut self) -> Result<Literal, String> {
        let rest = self.rest();
        let len = rest
            .find(|c: char| !(c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E')))
            .unwrap_or(rest.len());
        let digits = &rest[..len];
        let number = digits
            .parse()
            .map(Literal::Whole)
            .or_else(|_| digits.parse().map(Literal::Float))
            .map_err(|_| self.expected("a number"))?;
        self.at += len;
        Ok(number)
    }

    fn text(&mut self, quote: char) -> Result<String, String> {
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.take() {
                None => return Err(self.expected("the closing quote")),
                Some(c) if c == quote => return Ok(text),
                Some('\\') => text.push(self.escape()?),
                Some(c) => text.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        let digits = match self.take() {
            Some(c @ ('\\' | '\'' | '"')) => return Ok(c),
            Some('n') => return Ok('\n'),
            Some('r') => return Ok('\r'),
            Some('t') => return Ok('\t'),
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            _ => return Err(self.expected("an escape that `repr` makes")),
        };
        let code = self
            .rest()
            .get(..digits)
            .filter(|code| code.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = code
            .and_then(|code| u32::from_str_radix(code, 16).ok())
            .and_then(char::from_u32);
        let Some(c) = code else {
            return Err(self.expected("a character's code"));
        };
        self.at += digits;
        Ok(c)
    }
}

/// A string as `repr` would write it, or so that it is read as the same.
pub(crate) fn quoted(text: &str) -> String {
    use std::fmt::Write as _;
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push(quote);
    for c in text.chars() {
        match c {
            '\n' => literal.push_str("\\n"),
            '\r' => literal.push_str("\\r"),
            '\t' => literal.push_str("\\t"),
            '\\' => literal.push_str("\\\\"),
            c if c == quote => literal.extend(['\\', c]),
            // Also the ones beyond ASCII that some readers take for the end of a line.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                let code = u32::from(c);
                let _ = if code < 0x100 {
                    write!(literal, "\\x{code:02x}")
                } else {
                    write!(literal, "\\u{code:04x}")
                };
            }
            c => literal.push(c),
        }
    }
    literal.push(quote);
    literal
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Literal {
        Literal::Text(text.to_owned())
    }

    #[test]
    fn what_barman_writes_is_read() {
        assert_eq!(
            Literal::parse(r#"[('fast', 16401, "o'x"), (-1.5, None, True,), {'a': {}, 'b': []}]"#),
            Ok(Literal::List(vec![
                Literal::List(vec![text("fast"), Literal::Whole(16401), text("o'x")]),
                Literal::List(vec![Literal::Float(-1.5), Literal::None, Literal::Bool(true)]),
                Literal::Dict(vec![
                    (text("a"), Literal::Dict(Vec::new())),
                    (text("b"), Literal::List(Vec::new())),
                ]),
            ]))
        );
        assert_eq!(
            Literal::parse(r"'\x7f\u2028\U0001f600\\\'\n'"),
            Ok(text("\u{7f}\u{2028}\u{1f600}\\'\n"))
        );
    }

    #[test]
    fn what_is_no_literal_is_refused_and_told_where() {
        assert_eq!(Literal::parse("[1, 2"), Err("`,` expected at byte 5".to_owned()));
        for bad in [
            "",
            "[1 2]",
            "(1,,)",
            "{'a'}",
            "'a",
            r"'\q'",
            r"'\ud800'",
            r"'\x+1'",
            "1 2",
            "Nones",
            "__import__('os')",
            "-",
            "é",
        ] {
            assert!(Literal::parse(bad).is_err(), "{bad}");
        }
        assert!(Literal::parse(&"[".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn a_quoted_text_is_read_as_itself_and_stays_on_its_line(original in any::<String>()) {
            let literal = quoted(&original);
            prop_assert!(!literal.contains(['\n', '\r']));
            prop_assert_eq!(Literal::parse(&literal), Ok(Literal::Text(original)));
        }

        #[test]
        fn no_text_makes_it_panic(input in "[\\[\\](){},:'\"\\\\xuU0-9a-fNone.\\-é ]{0,40}") {
            let _ = Literal::parse(&input);
        }
    }
}

//! How deep a Cedar text is nested, counted before Cedar reads it, and how deep the expression that it makes.
//!
//! Cedar's parsers recurse with the text: a kilobyte of parentheses would end the process, and of nested
//! `if`s each doubles the work of the validator. People nest a handful of levels. A chain of operators is flat to
//! the eye only: `a && b && c` is `(a && b) && c`, one level for each, and the evaluator recurses with them.

use super::cedar::{Expr, ExprKind};

/// Deepest nesting of `(`, `[`, `{`, and in schemas `<`, that is read.
const MAX_DEPTH: usize = 64;
/// Most `if`s that may stand within one another.
const MAX_IFS: usize = 16;
/// Most operators in one policy that the parser is given: it takes them, but what it makes of a million cannot even
/// be thrown away without overflowing a stack.
const MAX_OPERATORS: usize = 10_000;
/// Deepest expression that is evaluated. On the 4 MiB of a thread that decides, the evaluator of a release build for x86-64
/// goes 954 levels deep, and then every call that the policy is about is denied: so that is refused long before.
pub const MAX_LEVELS: usize = 256;

/// What is nested too deeply, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooDeep {
    /// Byte offset of the first bracket or `if` beyond the limit.
    pub at: usize,
    /// Which limit.
    pub what: &'static str,
}

/// Measures a text of policies, or of a schema (where `<` is a bracket).
///
/// # Errors
/// [`TooDeep`]. A text that is no Cedar at all may pass: it is refused by the parser.
pub fn check(text: &str, is_schema: bool) -> Result<(), TooDeep> {
    // For each open bracket, how many `if`s are open in it: each lasts until the bracket closes.
    let mut open: Vec<usize> = vec![0];
    let mut ifs = 0;
    let mut half_operators = 0;
    for (at, token) in (Tokens { text, at: 0 }) {
        match token {
            "(" | "[" | "{" => open.push(0),
            "<" if is_schema => open.push(0),
            ">" if !is_schema => {}
            ")" | "]" | "}" | ">" => {
                let closed = if open.len() > 1 { open.pop() } else { open.last_mut().map(std::mem::take) };
                ifs -= closed.unwrap_or(0);
            }
            ";" => {
                ifs -= open.last_mut().map(std::mem::take).unwrap_or(0);
                half_operators = 0;
            }
            "if" => {
                ifs += 1;
                if let Some(here) = open.last_mut() {
                    *here += 1;
                }
            }
            _ => {}
        }
        half_operators += match token {
            "&" | "|" => 1,
            "+" | "-" | "*" | "." | "[" | "when" | "unless" if !is_schema => 2,
            _ => 0,
        };
        if half_operators > 2 * MAX_OPERATORS {
            return Err(TooDeep { at, what: "a policy holds more than 10000 operators" });
        }
        if open.len() > MAX_DEPTH + 1 {
            return Err(TooDeep { at, what: "brackets are nested deeper than 64 levels" });
        }
        if ifs > MAX_IFS {
            return Err(TooDeep { at, what: "more than 16 `if` stand within one another" });
        }
    }
    Ok(())
}

/// Whether an expression is deeper than [`MAX_LEVELS`].
#[must_use]
pub fn is_too_deep(expression: &Expr) -> bool {
    let mut rest = vec![(expression, 1)];
    while let Some((expr, level)) = rest.pop() {
        if level > MAX_LEVELS {
            return true;
        }
        let mut push = |inner| rest.push((inner, level + 1));
        match expr.expr_kind() {
            ExprKind::Lit(_) | ExprKind::Var(_) | ExprKind::Slot(_) | ExprKind::Unknown(_) => {}
            ExprKind::If { test_expr, then_expr, else_expr } => {
                [test_expr, then_expr, else_expr].into_iter().for_each(|inner| push(inner));
            }
            ExprKind::And { left, right } | ExprKind::Or { left, right } => {
                push(left);
                push(right);
            }
            ExprKind::BinaryApp { arg1, arg2, .. } => {
                push(arg1);
                push(arg2);
            }
            ExprKind::UnaryApp { arg: inner, .. }
            | ExprKind::GetAttr { expr: inner, .. }
            | ExprKind::HasAttr { expr: inner, .. }
            | ExprKind::ExtHasAttr { expr: inner, .. }
            | ExprKind::Like { expr: inner, .. }
            | ExprKind::Is { expr: inner, .. } => push(inner),
            ExprKind::ExtensionFunctionApp { args, .. } => args.iter().for_each(push),
            ExprKind::Set(items) => items.iter().for_each(push),
            ExprKind::Record(members) => members.values().for_each(push),
        }
    }
    false
}

/// Words and single characters of a Cedar text, without strings, comments and white space.
struct Tokens<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Iterator for Tokens<'t> {
    type Item = (usize, &'t str);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.text.get(self.at..)?;
            let first = rest.chars().next()?;
            let start = self.at;
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let length = if rest.starts_with("//") {
                rest.find('\n').unwrap_or(rest.len())
            } else if first == '"' {
                string_length(rest)
            } else if is_word(first) {
                rest.find(|c| !is_word(c)).unwrap_or(rest.len())
            } else {
                first.len_utf8()
            };
            self.at += length;
            if first != '"' && !first.is_whitespace() && !rest.starts_with("//") {
                return Some((start, rest.get(..length)?));
            }
        }
    }
}

/// Cuts a text of policies into pieces of `policies` each (the last one may have fewer), with the offsets at which they
/// begin: a `;` ends a policy and is nothing else.
pub fn pieces(text: &str, policies: usize) -> impl Iterator<Item = (usize, &str)> {
    let mut ends = Tokens { text, at: 0 }.filter(|(_, token)| *token == ";").map(|(at, _)| at + 1);
    let mut begin = 0;
    std::iter::from_fn(move || {
        let end = ends.by_ref().take(policies).last().unwrap_or(text.len());
        let piece = text.get(begin..end).filter(|piece| !piece.is_empty());
        let piece = piece.map(|piece| (begin, piece));
        begin = end;
        piece
    })
}

/// The length of the string literal that `text` begins with, or of all of it if the literal never ends.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(condition: &str) -> Result<(), TooDeep> {
        check(&format!("@id(\"a\")\npermit (principal, action, resource) when {{ {condition} }};"), false)
    }

    #[test]
    fn what_people_write_passes() {
        assert_eq!(policy(&format!("{}true{}", "(".repeat(60), ")".repeat(60))), Ok(()));
        assert_eq!(policy("a < b && c > d && \"((((\" like \"*\\\"(((\" // (((((\n"), Ok(()));
        assert_eq!(policy(&"(if a then b else c) && ".repeat(100)), Ok(()));
        assert_eq!(policy(&format!("{}true", "if a then b else ".repeat(16))), Ok(()));
        // One policy's `if`s end with it.
        let one = "permit (principal, action, resource) when { if a then b else c };\n";
        assert_eq!(check(&one.repeat(1_000), false), Ok(()));
        assert_eq!(check("type a = if;\n".repeat(100).as_str(), true), Ok(()));
        assert_eq!(check(&format!("type a = {}Long{};", "Set<".repeat(60), ">".repeat(60)), true), Ok(()));
    }

    #[test]
    fn what_would_end_the_process_is_refused() {
        let depth = |outcome: Result<(), TooDeep>| outcome.unwrap_err().what.contains("brackets");
        for bracket in ["(", "[", "{", "{a: "] {
            assert!(depth(policy(&bracket.repeat(65))), "{bracket}");
        }
        assert!(depth(check(&"Set<".repeat(65), true)));
        assert!(depth(check(&"\"\"(".repeat(65), false)));
        let nested = policy(&"if true then ".repeat(17)).unwrap_err();
        assert!(nested.what.contains("`if`"));
        assert!(policy(&"(if true then ".repeat(17)).is_err());
        assert!(policy(&"if a then b else ".repeat(17)).is_err());
        for chain in ["a && ", "a || ", "1 + ", "a.b == ", "a[\"b\"]", "when { a } "] {
            assert_eq!(policy(&chain.repeat(9_000)), Ok(()), "{chain}");
            let long = policy(&chain.repeat(10_001)).unwrap_err();
            assert!(long.what.contains("operators"), "{chain}");
        }
        // They are counted in each policy.
        assert_eq!(policy(&format!("{0};{0};", "a && ".repeat(9_000))), Ok(()));
    }

    #[test]
    fn no_text_is_too_strange_to_measure() {
        for text in ["", "\"", "\"\\", "))))", ">>>", "é(ü", "if", "// (", "/"] {
            assert_eq!(check(text, false), Ok(()), "{text}");
            assert_eq!(check(text, true), Ok(()), "{text}");
        }
    }

    #[test]
    fn pieces_end_behind_policies() {
        let text = "// a; b\npermit (principal, action, resource) when { \"x;\\\";\" == \"\" };\n@id(\";\") forbid (principal, action, resource);\npermit (principal, action, resource); // end;\n";
        let of = |policies| pieces(text, policies).collect::<Vec<_>>();
        // The comment behind the last one.
        assert_eq!(of(9).len(), 2);
        for policies in 1..=4 {
            let all = of(policies);
            assert_eq!(all.iter().map(|(_, piece)| *piece).collect::<String>(), text);
            assert!(all.iter().all(|(begin, piece)| text.get(*begin..).unwrap().starts_with(piece)));
            let ends = |piece: &str| piece.ends_with(");") || piece.ends_with("};") || piece.ends_with("end;\n");
            assert!(all.iter().all(|(_, piece)| ends(piece)), "{all:?}");
        }
        assert_eq!(of(1).len(), 4);
        assert_eq!(pieces("", 1).count(), 0);
        // A text that never ends is one piece, for the parser to refuse.
        assert_eq!(pieces("permit \"; ; ;", 1).count(), 1);
        assert_eq!(pieces(";;", 1).collect::<Vec<_>>(), [(0, ";"), (1, ";")]);
    }
}

//! Regular expressions of a schema, and what they may cost.
//!
//! A match takes time linear in the text, but also in the program, and a program of a megabyte is a few letters. So each byte of a
//! text costs steps by the size of the program, and they come out of the steps of the whole check.

use jsonschema::{Keyword, PatternOptions, ValidationError, Validator};
use serde_json::{Value, json};

use super::node::{Checked, Strict};
use crate::authz::call::json::Json;

/// Largest programs, in bytes, each with the steps that it takes for a byte of text; of ten nanoseconds, measured with texts and
/// programs that defeat every short cut.
const SIZES: [(usize, usize); 5] =
    [(2 * 1024, 50), (16 * 1024, 400), (64 * 1024, 2_300), (256 * 1024, 10_000), (1024 * 1024, MOST_STEPS_PER_BYTE)];

/// Those of the largest.
pub(super) const MOST_STEPS_PER_BYTE: usize = 26_000;

/// A regular expression in the place of `pattern`.
pub(super) struct Pattern {
    validator: Validator<Strict>,
    steps_per_byte: usize,
}

impl Pattern {
    /// Compiles one.
    ///
    /// # Errors
    /// For the operator: why it may be that it cannot be had.
    pub(super) fn of(pattern: &Value) -> Result<Self, &'static str> {
        for (size, steps_per_byte) in SIZES {
            let options = PatternOptions::regex().size_limit(size).dfa_size_limit(size);
            let options = jsonschema::options_for::<Strict>().offline().with_pattern_options(options);
            if let Ok(validator) = options.build(&json!({ "pattern": pattern })) {
                return Ok(Self { validator, steps_per_byte });
            }
        }
        Err(
            "a regular expression is none, cannot be run in linear time (look-around, back references), or is too large",
        )
    }

    pub(super) const fn steps_per_byte(&self) -> usize {
        self.steps_per_byte
    }
}

/// The options for the expressions that are not a `pattern`: those of `patternProperties`.
pub(super) fn options() -> PatternOptions<jsonschema::Regex> {
    let most = SIZES.iter().map(|(size, _)| *size).max().unwrap_or_default();
    PatternOptions::regex().size_limit(most).dfa_size_limit(most)
}

impl<'i> Keyword<'i, Strict> for Pattern {
    fn validate(&self, node: Checked<'i>) -> Result<(), ValidationError<'i>> {
        if self.is_valid(node) { Ok(()) } else { Err(ValidationError::custom("pattern")) }
    }

    fn is_valid(&self, node: Checked<'i>) -> bool {
        let Json::String(text) = node.json else { return true };
        node.left.take(text.len().saturating_mul(self.steps_per_byte)) && self.validator.is_valid(node)
    }
}

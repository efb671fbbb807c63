//! What a server lists as its tools: read, imported, and arguments checked by the schemas in it. None takes long.

use palisade::authz::call::json::Json;
use palisade::authz::limits::Limits;
use palisade::authz::policy::arguments::Arguments;
use palisade::authz::policy::registry::Registry;
use palisade::tools::import::{import, is_as_made};
use palisade::tools::read;
use palisade::tools::rules::Rules;

pub fn run(input: &[u8]) {
    let Ok(definitions) = read(input) else { return };
    let imported = import("server", &definitions, None, &Rules::default());
    assert!(is_as_made(&imported.schema), "{}", imported.schema);
    let registry = Registry::parse("server.tools.json", &imported.registry).expect("it is written to be read");
    assert_eq!(registry.tools.len(), imported.tools);
    let limits = Limits::default();
    // The list itself is as good an argument as any.
    let Ok(list) = Json::parse(input, &limits) else { return };
    for schema in registry.tools.iter().filter_map(|tool| tool.input_schema.as_ref()) {
        let arguments = Arguments::of(schema).expect("it was imported");
        for json in [&list, &Json::Object(Vec::new())] {
            if let Err(mismatch) = arguments.check(json) {
                assert!(!mismatch.problem.is_empty() && mismatch.to_string().len() <= 256, "{mismatch}");
            }
        }
    }
}

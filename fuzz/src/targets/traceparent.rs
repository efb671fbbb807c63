//! What is accepted as a parent is the one text that names it.

use palisade::authz::traceparent::TraceParent;

pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Some(parent) = TraceParent::parse(text) else { return };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert!(text.starts_with(&format!("00-{}-{}-", hex(&parent.trace_id), hex(&parent.span_id))));
    assert!(text.len() == 55 && parent.trace_id != [0; 16] && parent.span_id != [0; 8]);
}

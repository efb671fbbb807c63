//! What is left out of a record that would be too large for an entry of a log.

use prost::Message as _;

use crate::authz::plain::bounded;
use crate::proto::{CallRecord, DecisionRecord, PolicyRecord, Verdict};

/// Largest record, encoded, in bytes: an entry of a log has 64 KiB, and something of its own beside the record.
pub const MAX_BYTES: usize = 65_535 - 64;
/// Longest text of a record that is still too large without its lists, in bytes.
const MAX_TEXT_BYTES: usize = 1_024;

/// Makes a message fit, and says what of it is gone.
pub(super) fn fit(message: &mut DecisionRecord) {
    let is_too_large = |message: &DecisionRecord| message.encoded_len() > MAX_BYTES;
    if !is_too_large(message) {
        return;
    }
    message.shortened = 1;
    leave_out_lists(message);
    // The call that was denied is the last.
    let kept_at_the_end = usize::from(message.verdict == i32::from(Verdict::Denial));
    while is_too_large(message) && message.calls.len() > 1 {
        message.calls.remove(message.calls.len() - 1 - kept_at_the_end);
        message.shortened += 1;
    }
    for most in [32, 16, 8, 4, 2, 1, 0] {
        if !is_too_large(message) {
            return;
        }
        cut_lists(message, most);
    }
    if is_too_large(message) {
        cut_texts(message);
    }
}

fn leave_out_lists(message: &mut DecisionRecord) {
    for call in &mut message.calls {
        call.evaluated = Vec::new();
        call.demanding = Vec::new();
        for policy in &mut call.policies {
            let PolicyRecord { id, grant, .. } = std::mem::take(policy);
            *policy = PolicyRecord { id, grant, ..PolicyRecord::default() };
        }
    }
}

/// Of each list its first entries alone.
fn cut_lists(message: &mut DecisionRecord, most: usize) {
    for CallRecord { policies, errors, limits, arguments, .. } in &mut message.calls {
        policies.truncate(most);
        errors.truncate(most);
        limits.truncate(most);
        arguments.truncate(most);
    }
    if let Some(caller) = &mut message.caller {
        caller.tokens.truncate(most);
        caller.actors.truncate(most);
        caller.proved.truncate(most);
    }
    if let Some(control) = &mut message.control {
        control.holds.truncate(most);
        control.grants.truncate(most);
    }
}

/// What of texts nobody bounds before.
fn cut_texts(message: &mut DecisionRecord) {
    let cut = |text: &mut String| *text = bounded(text, MAX_TEXT_BYTES);
    [&mut message.detail, &mut message.hold, &mut message.target, &mut message.task].into_iter().for_each(cut);
    if let Some(caller) = &mut message.caller {
        [&mut caller.spiffe_id, &mut caller.user, &mut caller.session].into_iter().for_each(cut);
    }
    message.control.iter_mut().for_each(|control| cut(&mut control.reason));
    for call in &mut message.calls {
        [&mut call.action, &mut call.resource, &mut call.method, &mut call.tool].into_iter().for_each(cut);
    }
}

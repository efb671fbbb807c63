//! Records on their way, and what becomes of those who wait for them.

use std::time::{Duration, Instant};

use super::lines::Lines;
use super::*;
use crate::authz::decision::Decision;
use crate::authz::reason::Reason;
use crate::authz::record::{BundleName, RequestSummary, Trace};

/// A denial, which nobody waits for.
pub fn record(id: &str) -> Arc<Record> {
    let trace = Trace { trace_id: [1; 16], span_id: [1; 8], parent_span_id: None, parent_sampled: false };
    Arc::new(Record {
        decision_id: id.into(),
        time: jiff::Timestamp::UNIX_EPOCH,
        decision: Decision::deny(Reason::TargetUnknown),
        request: RequestSummary::default(),
        bundle: BundleName::default(),
        trace,
        duration_micros: 1,
        control: None,
    })
}

#[test]
fn nothing_is_taken_after_the_end_and_whatever_was_taken_is_written() {
    for when_unwritable in [WhenUnwritable::Deny, WhenUnwritable::ContinueAndCount] {
        let config = Config { when_unwritable, queue_records: usize::MAX, ..Config::default() };
        let (sink, seen) = (Box::new(Lines::to(Box::new(std::io::sink())).unwrap()), Arc::new(AtomicUsize::new(0)));
        let count = seen.clone();
        let observe = move |_: &Record| {
            count.fetch_add(1, Ordering::Relaxed);
        };
        let writer = Writer::start(&config, sink, observe).unwrap();
        let (recorder, thread) = (writer.recorder(), writer.thread());
        let mut taken = 0;
        thread::scope(|scope| {
            let end = scope.spawn(|| writer.finish(Instant::now() + Duration::from_secs(60)));
            while recorder.record(record("id"), &thread).is_ok() {
                taken += 1;
            }
            assert_eq!(end.join().unwrap(), 0, "unwritten");
        });
        assert_eq!(seen.load(Ordering::Relaxed), taken);
        assert!(recorder.record(record("id"), &thread).is_err());
        assert!(recorder.lost() > 0);
    }
}

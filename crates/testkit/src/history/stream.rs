//! Checks the messages of a stream against the ledgers.

use std::collections::BTreeMap;

use super::LedgerRow;

/// The contradictions between the messages of a stream and the ledgers, as text; empty if there are none. The
/// messages must be in the order of the stream, and the entries in the order of each ledger.
///
/// - The messages of each event are a prefix of its ledger: its entries in order, each once, with the same
///   content.
/// - If the stream must be `complete`, that prefix is the complete ledger.
pub fn check_stream(ledgers: &[LedgerRow], messages: &[LedgerRow], complete: bool) -> Vec<String> {
    let mut remaining: BTreeMap<&str, Vec<&LedgerRow>> = BTreeMap::new();
    for entry in ledgers.iter().rev() {
        remaining.entry(&entry.event).or_default().push(entry);
    }
    let mut violations = Vec::new();
    for message in messages {
        let event = &message.event;
        let seq = message.seq;
        let ledger = remaining.entry(event).or_default();
        // A message out of order does not consume the next entry.
        match ledger.pop_if(|next| next.seq == seq) {
            Some(entry) if *entry == *message => {}
            Some(entry) => {
                violations.push(format!("the stream has {message:?}, but the ledger has {entry:?}"));
            }
            None => violations.push(match ledger.last() {
                Some(next) if next.seq < seq => {
                    format!("the stream has entry {seq} of {event} before entry {}", next.seq)
                }
                _ => format!("the stream has entry {seq} of {event} again, or no ledger has it"),
            }),
        }
    }
    if complete {
        let missing = remaining.values().flatten();
        violations
            .extend(missing.map(|entry| format!("the stream lacks entry {} of {}", entry.seq, entry.event)));
    }
    violations
}

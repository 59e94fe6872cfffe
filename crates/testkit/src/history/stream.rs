//! What was told of the ledgers, against what they say.

use std::collections::BTreeMap;

use super::LedgerRow;

/// What the messages of a stream and the ledgers say against each other, in words; empty where nothing does. Both
/// are given in their own order; of the ledgers that is the order of each.
///
/// - Of each event, the messages are the beginning of its ledger: its entries one by one, in their order, each
///   once, and each says what the entry says (I-8).
/// - Where the stream must be `whole`, that beginning is all of it (I-7).
pub fn check_stream(ledgers: &[LedgerRow], messages: &[LedgerRow], whole: bool) -> Vec<String> {
    let mut left: BTreeMap<&str, Vec<&LedgerRow>> = BTreeMap::new();
    for entry in ledgers.iter().rev() {
        left.entry(&entry.event).or_default().push(entry);
    }
    let mut wrong = Vec::new();
    for message in messages {
        let (event, seq) = (&message.event, message.seq);
        let ledger = left.entry(event).or_default();
        // An entry that is not the next one leaves that where it is.
        match ledger.pop_if(|next| next.seq == seq) {
            Some(entry) if *entry == *message => {}
            Some(entry) => wrong.push(format!("the stream says {message:?}, and the ledger {entry:?}")),
            None => wrong.push(match ledger.last() {
                Some(next) if next.seq < seq => {
                    format!("the stream tells entry {seq} of {event} before entry {}", next.seq)
                }
                _ => format!("the stream tells entry {seq} of {event} again, or it is in no ledger"),
            }),
        }
    }
    if whole {
        let untold = left.values().flatten();
        wrong.extend(untold.map(|entry| format!("the stream lacks entry {} of {}", entry.seq, entry.event)));
    }
    wrong
}

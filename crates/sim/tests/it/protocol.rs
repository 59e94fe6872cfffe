//! The protocol, exhausted: every order in which a few deeds can meet, with locks that vanish and one death.

use sim::model::{Deed, Setting, search};

/// Two orders for one place: paid late and twice, given up, cleaned up.
const ONE_PLACE: Setting = Setting {
    capacity: 1,
    one_user: false,
    deeds: &[
        Deed::Book(0),
        Deed::Book(1),
        Deed::Confirm(0, 0),
        Deed::Confirm(0, 0),
        Deed::Confirm(0, 1),
        Deed::Confirm(1, 0),
        Deed::Cancel(0),
        Deed::Cancel(1),
        Deed::Expire(0),
        Deed::Expire(1),
    ],
};

/// Room for both, but one user who may have only one, and somebody who wants to take it away.
const ONE_USER: Setting = Setting {
    capacity: 2,
    one_user: true,
    deeds: &[
        Deed::Book(0),
        Deed::Book(1),
        Deed::Confirm(0, 0),
        Deed::Confirm(0, 0),
        Deed::Confirm(1, 0),
        Deed::Cancel(0),
        Deed::Steal(1),
        Deed::Expire(0),
        Deed::Expire(1),
    ],
};

/// An event that ends while payments are on their way.
const THE_END: Setting = Setting {
    capacity: 1,
    one_user: false,
    deeds: &[
        Deed::Book(0),
        Deed::Book(1),
        Deed::Confirm(0, 0),
        Deed::Confirm(0, 0),
        Deed::Confirm(1, 1),
        Deed::Cancel(0),
        Deed::Expire(0),
        Deed::End,
        Deed::Doom(0),
        Deed::Doom(1),
    ],
};

/// Fewer deeds, in which every guard of the protocol is needed all the same: to hunt for missing ones.
#[cfg(feature = "sabotage")]
pub(crate) const SMALL: [Setting; 3] = [
    Setting {
        deeds: &[
            Deed::Book(0),
            Deed::Book(1),
            Deed::Confirm(0, 0),
            Deed::Confirm(0, 0),
            Deed::Cancel(0),
            Deed::Expire(0),
        ],
        ..ONE_PLACE
    },
    Setting {
        deeds: &[Deed::Book(0), Deed::Book(1), Deed::Confirm(0, 0), Deed::Steal(0), Deed::Expire(0)],
        ..ONE_USER
    },
    Setting {
        deeds: &[
            Deed::Book(0),
            Deed::Confirm(0, 0),
            Deed::Confirm(0, 0),
            Deed::End,
            Deed::Doom(0),
            Deed::Book(1),
        ],
        ..THE_END
    },
];

/// What no setting may leave out.
const ALWAYS: &[&str] = &[
    "a lock is lost",
    "a process dies",
    "goes on without the lock",
    "an overdue hold is freed for somebody",
    "absent to pending",
    "pending to confirmed",
    "pending to cancelled",
    "pending to expired",
    "expired to confirmed",
    "confirmed to cancelled",
    "hold_expired",
    "invalid_state",
];

fn exhausted(setting: &Setting, states: usize, sometimes: &[&str]) {
    let all = search(setting).unwrap_or_else(|broken| panic!("{broken:#?}"));
    assert!(all.states >= states, "only {} states", all.states);
    let missing: Vec<_> = ALWAYS.iter().chain(sometimes).filter(|what| !all.seen.contains(**what)).collect();
    assert!(missing.is_empty(), "never met: {missing:?}");
}

#[test]
fn one_place_is_given_out_once_in_every_order() {
    exhausted(&ONE_PLACE, 1_000_000, &["sold_out"]);
}

#[test]
fn one_user_keeps_to_the_limit_in_every_order() {
    exhausted(&ONE_USER, 400_000, &["booking_limit_exceeded", "not_found"]);
}

#[test]
fn every_payment_for_a_cancelled_event_is_given_back_in_every_order() {
    exhausted(&THE_END, 300_000, &["event_cancelled"]);
}

//! What a booking is: its states, its rules, its money, and how the answer is "no".
//!
//! The heart is [`decide()`]: a pure function from what is stored and what is asked to what changes.
//! Both databases, the simulator and the audit call the same one, so a rule lives in one place.
//!
//! This crate must not do I/O, read a clock or draw a random number: its manifest names no runtime,
//! and [`Clock`] and [`Ids`] are doors that others open.

mod audit;
mod booking;
mod command;
mod decide;
mod event;
mod id;
mod ledger;
mod limit;
mod money;
mod refund;
mod refusal;
pub mod sabotage;
mod text;
mod time;
mod trace;

pub use audit::{Audit, AuditReport, History};
pub use booking::{Booking, BookingStatus, Item, Items, Payment, PaymentStatus, State};
pub use command::{
    Action, Actor, Cancellation, Command, Confirmation, EventPatch, NewEvent, NewTicketType, Order,
    Settlement, TicketSelection, TicketTypePatch,
};
pub use decide::{Answer, Change, Decision, HoldScope, Inconsistent, Shortage, Snapshot, decide};
pub use event::{
    Event, EventDetails, EventStatus, Inventory, Tallies, TicketState, TicketType, TypeInventory,
};
pub use id::{BookingId, EventId, IdError, Ids, RefundId, TicketTypeId};
pub use ledger::{Entry, EntryKind, EntryLine, LedgerStatus};
pub use limit::*;
pub use money::{Currency, Money, MoneyError};
pub use refund::{Refund, RefundReason, RefundStatus};
pub use refusal::{Invalid, Refusal};
pub use text::{Name, Note, RequestId, Text, TextError, TimeZone, TransactionId, UserId};
pub use time::{Clock, Timestamp, TimestampError};
pub use trace::{InvalidTraceParent, TraceParent};

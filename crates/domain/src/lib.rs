//! The domain of ticket booking: states, rules, money and refusals.
//!
//! The core is [`decide()`], a pure function from stored data and a command to a decision. Both databases,
//! the simulator and the exhaustive model search call it, so each rule exists once.
//!
//! This crate must not do I/O, read a clock or generate random numbers: its manifest contains no runtime, and
//! the traits [`Clock`] and [`Ids`] are implemented elsewhere.

mod actor;
mod audit;
mod booking;
mod command;
mod decide;
mod event;
mod id;
mod inconsistency;
mod ledger;
mod limit;
mod metadata;
mod money;
mod refund;
mod refusal;
pub mod sabotage;
mod string_enum;
mod text;
mod time;
mod trace;

pub use actor::Actor;
pub use audit::{Audit, AuditReport, History};
pub use booking::{Booking, BookingStatus, Item, Items, Payment, PaymentStatus, State};
pub use command::{
    Action, Cancellation, CapturedPayment, Command, Confirmation, EventPatch, NewEvent, NewTicketType, Order,
    RefundOutcome, Settlement, TicketSelection, TicketTypePatch,
};
#[cfg(not(feature = "sabotage"))]
pub use decide::decide;
pub use decide::{Answer, Change, Decision, HoldScope, Shortage, Snapshot};
use event::TicketState;
pub use event::{Event, EventDetails, EventStatus, Inventory, Tallies, TicketType, TypeInventory};
pub use id::{BookingId, EventId, IdError, Ids, RefundId, TicketTypeId};
pub use inconsistency::InconsistencyError;
pub use ledger::{Entry, EntryKind, EntryLine, LedgerKind, LedgerStatus, UnknownKind};
pub use limit::*;
pub use metadata::{Metadata, MetadataError};
pub use money::{Currency, Money, MoneyError};
pub use refund::{Refund, RefundReason, RefundStatus};
pub use refusal::{Invalid, Refusal};
#[cfg(feature = "sabotage")]
pub use sabotage::bugs::decide;
pub use text::{
    ExternalRef, Name, Note, ProviderReference, RequestId, TextError, TimeZone, TransactionId, UserId,
};
pub use time::{Clock, Timestamp, TimestampError};
pub use trace::{InvalidTraceParent, TraceParent};

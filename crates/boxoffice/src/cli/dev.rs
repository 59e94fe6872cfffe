//! `boxoffice dev`: a server for a first booking within a minute.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use domain::{
    Actor, Answer, Event, EventStatus, Ids, Money, NewEvent, NewTicketType, TICKETS_PER_BOOKING_DEFAULT,
    UserId,
};
use engine::{Caller, CommandOutput, Engine, Reader, SystemIds};
use http_api::HttpState;
use http_api::auth::{ExpectedClaims, Identity, Role, Tokens};
use store::Sqlite;
use tokio::net::TcpListener;

use super::database::sqlite_options;
use super::serve::{ListenError, assemble, listen, serve};
use super::{Failure, print_output};
use crate::config::{self, Dev, LogFormat};
use crate::coordination_ports::CoordinationPorts;
use crate::limit::DEV_SHUTDOWN_WAIT_MAX;
use crate::log;

/// The preferred port of `dev`.
const PORT: u16 = 8080;
/// Lifetime of the printed tokens.
const TOKEN_SECONDS: u64 = 7 * 24 * 60 * 60;
/// Interval at which overdue bookings are expired.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

pub(super) async fn run(args: &Dev) -> Result<ExitCode, Failure> {
    log::init(tracing::Level::WARN, LogFormat::Text);
    let temporary = if args.data.is_some() { None } else { Some(tempfile::tempdir()?) };
    let directory = args.data.as_deref().or(temporary.as_ref().map(tempfile::TempDir::path));
    let directory = directory.unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).map_err(|error| {
        Failure::Failed(format!("cannot create the directory {}: {error}", directory.display()))
    })?;
    let store = Sqlite::open(&directory.join("boxoffice.db"), true, &sqlite_options())?;
    // Random for each run: a fixed secret would be publicly known, and would outlive its purpose.
    let secret: Vec<u8> = (0..4).flat_map(|_| SystemIds.random()).collect();
    let policy = config::default_policy();
    let server = assemble(
        Arc::new(store),
        Tokens::new(&[secret], &[], &ExpectedClaims::default()),
        policy,
        CoordinationPorts::local(),
        None,
    );
    let engine = &server.http.app.engine;
    let event = sample_event(engine).await?;
    let listener = match args.listen {
        Some(address) => listen(address).await?,
        None => listen_on_default_port().await?,
    };
    engine.start_chores(SWEEP_EVERY);
    print_welcome(&server.http, &event, &format!("http://{}", listener.local_addr()?), args.data.as_deref())?;
    serve(listener, None, server, DEV_SHUTDOWN_WAIT_MAX).await
}

/// Listens on [`PORT`], or on a free port if it is in use, so that a first run needs no settings.
async fn listen_on_default_port() -> Result<TcpListener, Failure> {
    match listen((Ipv4Addr::LOCALHOST, PORT).into()).await {
        Err(ListenError { source, .. }) if source.kind() == ErrorKind::AddrInUse => {
            Ok(listen((Ipv4Addr::LOCALHOST, 0).into()).await?)
        }
        result => Ok(result?),
    }
}

/// Returns the newest event if it can be booked, and a new event otherwise.
async fn sample_event(engine: &Arc<Engine>) -> Result<Event, Failure> {
    let failed = |error: engine::Error| Failure::Failed(error.to_string());
    let newest = engine.events(&reader(), None, 1).await.map_err(failed)?.rows.into_iter().next();
    let is_on_sale =
        |event: &Event| event.details.status == EventStatus::OnSale && event.details.starts_at > engine.now();
    if let Some(event) = newest.filter(is_on_sale) {
        return Ok(event);
    }
    put_on_sale(engine, |_| ()).await
}

/// Returns the program itself as a reader.
pub(super) fn reader() -> Reader {
    Reader::Service("boxoffice".parse().unwrap_or_else(|_| unreachable!("nine letters are a user id")))
}

/// Creates the sample event, modified by `change`.
pub(super) async fn put_on_sale(
    engine: &Arc<Engine>,
    change: impl FnOnce(&mut NewEvent),
) -> Result<Event, Failure> {
    let failed = |error: engine::Error| Failure::Failed(error.to_string());
    let text = "the sample event is valid";
    let price = Money::new(4_500, "EUR".parse().map_err(|_| Failure::Failed(text.into()))?);
    let parse = |name: &str| name.parse().map_err(|_| Failure::Failed(text.into()));
    let policy = engine.policy();
    let mut new = NewEvent {
        id: engine.event_id(),
        name: parse("Night of the Open Doors")?,
        venue: parse("Old Power Station")?,
        starts_at: engine.now().plus_seconds(90 * 24 * 60 * 60),
        time_zone: "Europe/Berlin".parse().ok(),
        capacity: 1_000,
        ticket_types: vec![NewTicketType {
            id: engine.ticket_type_id(),
            name: parse("Standing")?,
            price: price.map_err(|_| Failure::Failed(text.into()))?,
            capacity: None,
        }],
        single_price: true,
        sales_start_at: None,
        sales_end_at: None,
        hold_seconds: policy.hold_seconds,
        cancel_cutoff_seconds: policy.cancel_cutoff_seconds,
        max_tickets_per_booking: TICKETS_PER_BOOKING_DEFAULT,
        max_tickets_per_user: None,
    };
    change(&mut new);
    let request = "req_sample".parse().map_err(|_| Failure::Failed(text.into()))?;
    match engine
        .create_event(Caller { actor: Actor::System, request, trace: None, deadline: None }, new, None)
        .await
        .map_err(failed)?
    {
        CommandOutput::Fresh(Answer::Event(event)) => Ok(*event),
        CommandOutput::Fresh(_) | CommandOutput::Stored { .. } => {
            Err(Failure::Failed("the sample event was not created".into()))
        }
    }
}

/// Prints at most twelve lines: the address, a token for each role, and two commands to paste.
fn print_welcome(
    state: &HttpState,
    event: &Event,
    address: &str,
    data: Option<&Path>,
) -> Result<(), Failure> {
    let token = |user: &str, role| {
        let user: UserId = user.parse().map_err(|_| Failure::Failed("the sample users are valid".into()))?;
        state.tokens.sign(&Identity { user, role }, &*state.clock, TOKEN_SECONDS).map_err(Failure::Failed)
    };
    let buyer = token("buyer-1", Role::User)?;
    let service = token("payments", Role::Service)?;
    let admin = token("organiser", Role::Admin)?;
    let data = data.map_or("deleted on exit".to_owned(), |data| format!("in {}", data.display()));
    let post = "-H 'Content-Type: application/json' -d";
    print_output(format_args!(
        "boxoffice is ready at {address}/v1/events (data: {data}). Press Ctrl-C to stop."
    ));
    print_output(format_args!("API reference: {address}/docs"));
    print_output(format_args!("Buyer token:   {buyer}"));
    print_output(format_args!("Service token: {service}"));
    print_output(format_args!("Admin token:   {admin}"));
    print_output("Book two tickets as the buyer:");
    print_output(format_args!(
        "curl -s {address}/v1/bookings -H 'Authorization: Bearer {buyer}' {post} \
         '{{\"eventId\":\"{}\",\"ticketQuantity\":2}}'; echo",
        event.id
    ));
    print_output("Confirm the newest booking, as the payment service does after a payment:");
    print_output(format_args!(
        "curl -s {address}/v1/bookings/$(curl -s '{address}/v1/bookings?limit=1' \
         -H 'Authorization: Bearer {service}' | grep -o 'bkg_[0-9a-z]*' | head -n 1)/confirm \
         -H 'Authorization: Bearer {service}' {post} '{{\"paymentTransactionId\":\"pay-1\"}}'; echo"
    ));
    Ok(())
}

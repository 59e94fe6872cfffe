//! Three NATS servers, one of which fails during sales: every entry is on the stream, once and in order.
//!
//! `CLUSTER_ROUNDS=3` kills, pauses and restarts each server that often.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::ClusterInfo;
use serde_json::{Value, json};
use testkit::{
    Exit, Load, NatsCluster, NatsServer, PostgresServer, Server, Setup, event_body, eventually,
    number_from_environment,
};
use tokio::time::sleep;

use crate::ledger_stream::{expect_complete_at, streams_at};
use crate::program;

/// Duration of a server's pause: longer than its cluster waits before it elects another leader.
const PAUSE: Duration = Duration::from_secs(12);

/// Failure of a server.
#[derive(Clone, Copy, Debug)]
enum Failure {
    Kill,
    Pause,
    Restart,
}

/// C2: a replica that catches up by a snapshot does not know the id of the last message, so a publish that
/// expects this id ends its stream. The sale pauses meanwhile: a relay whose session ended in that time would
/// begin the next one without an expected id.
#[tokio::test(flavor = "multi_thread")]
async fn c2_adding_replicas_between_sales_does_not_stop_the_stream() {
    let Some(mut sale) = Sale::start().await else {
        return println!("no current nats-server on this machine, so not tested");
    };
    sale.pause().await;
    sale.replicate().await;
    sale.resume();
    sale.sell().await;
    let leader = sale.leader().await;
    sale.fail(leader, Failure::Kill).await;
    let (entries, sale) = sale.finish().await;
    println!("{entries} entries, one edit, one kill");
    sale.expect_loss_of_leader().await;
}

/// The full campaign. Runs only if `CLUSTER_ROUNDS` is set.
#[tokio::test(flavor = "multi_thread")]
async fn c2_every_server_fails_in_every_way() {
    let Some(rounds) = number_from_environment("CLUSTER_ROUNDS") else { return };
    let mut sale = Sale::start().await.expect("a current nats-server");
    sale.replicate().await;
    sale.sell().await;
    for _ in 0..rounds {
        for failure in [Failure::Kill, Failure::Pause, Failure::Restart] {
            for server in 0..3 {
                sale.fail(server, failure).await;
            }
        }
    }
    let (entries, _) = sale.finish().await;
    println!("{entries} entries, one edit, {rounds} times every failure of every server");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_stream_has_the_configured_replicas() {
    let replicated =
        |url: &str| Setup::new(program()).argument("--nats").argument(url).argument("--nats-replicas=3");
    let single = NatsServer::start().await;
    let server = replicated(&single.url()).start().await;
    eventually("readiness reports why there is no stream", async || {
        let ready = server.anonymous().get("/readyz?verbose").await.json();
        let status = ready["nats"]["status"].as_str().unwrap_or_default();
        (ready["status"] == "degraded" && status.contains("it is not a cluster")).then_some(())
    })
    .await;
    let refused = program().run(["serve", "--nats-replicas", "2"]).await;
    assert_eq!(refused.exit, Exit::Code(2), "{refused:?}");
    assert!(refused.stderr.contains("1 replica, or 3 on a cluster"), "{refused:?}");

    let Some(cluster) = NatsCluster::start().await else {
        return println!("no current nats-server on this machine, so not tested");
    };
    let server = replicated(&cluster.url()).start().await;
    server.admin().create_event(&event_body(1)).await;
    let streams = streams_at(&cluster.url()).await;
    for _ in 0..2 {
        expect_complete_at(&cluster.url(), &mut server.admin()).await;
        let stream = streams.get_stream("BOXOFFICE").await.expect("a stream");
        assert_eq!(stream.cached_info().config.num_replicas, 3);
        streams.delete_stream("BOXOFFICE").await.expect("the stream is deleted");
    }
}

/// Two instances that sell while their NATS cluster changes.
struct Sale {
    cluster: NatsCluster,
    servers: Vec<Server>,
    loads: Vec<Load>,
    events: Vec<String>,
}

impl Sale {
    /// Starts the sales, with a stream of one replica that has entries.
    async fn start() -> Option<Self> {
        let cluster = NatsCluster::start().await?;
        let database = PostgresServer::shared().await.create_database().await;
        let (mut servers, mut events) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let setup = Setup::new(program()).argument("--nats").argument(cluster.url());
            servers.push(setup.on_postgres(&database).start().await);
        }
        for _ in 0..4 {
            events.push(servers[0].admin().create_event(&event_body(1_000_000)).await);
        }
        let mut sale = Self { cluster, loads: Vec::new(), servers, events };
        sale.resume();
        sale.sell().await;
        let streams = streams_at(&sale.cluster.url()).await;
        eventually("the stream has entries", async || {
            let stream = streams.get_stream("BOXOFFICE").await.ok()?;
            (stream.cached_info().state.messages > 50).then_some(())
        })
        .await;
        Some(sale)
    }

    /// Starts the sales again: every instance sells its own events.
    fn resume(&mut self) {
        let shares = self.servers.iter().zip(self.events.chunks(2));
        self.loads = shares.map(|(server, events)| Load::start(server, events, 2)).collect();
    }

    /// Ends the sales. Returns the number of entries on the stream, which must be complete and in order.
    async fn pause(&mut self) -> usize {
        for load in self.loads.drain(..) {
            assert!(!load.stop().await.is_empty());
        }
        expect_complete_at(&self.cluster.url(), &mut self.servers[0].admin()).await
    }

    /// Waits for more sales by every instance.
    async fn sell(&mut self) {
        for load in &mut self.loads {
            load.wait_for_acknowledged(load.acknowledged_count() + 100).await;
        }
    }

    /// Edits the stream, as an operator does, and waits until every replica has it.
    async fn replicate(&mut self) {
        let streams = streams_at(&self.cluster.url()).await;
        eventually("the stream is edited", async || {
            let mut config = streams.get_stream("BOXOFFICE").await.ok()?.cached_info().config.clone();
            config.num_replicas = 3;
            streams.update_stream(config).await.ok()
        })
        .await;
        wait_until_current(&streams).await;
    }

    /// The index of the server that leads the stream.
    async fn leader(&self) -> usize {
        let info = wait_until_current(&streams_at(&self.cluster.url()).await).await;
        self.cluster.index_of(&info.leader.expect("a leader"))
    }

    /// Lets one server fail during sales and return, and waits until all replicas are current again.
    async fn fail(&mut self, server: usize, failure: Failure) {
        match failure {
            Failure::Kill => self.cluster.servers[server].kill9(),
            Failure::Pause => self.cluster.servers[server].pause(),
            Failure::Restart => self.cluster.servers[server].terminate().await,
        }
        self.sell().await;
        match failure {
            Failure::Kill | Failure::Restart => self.cluster.servers[server].restart().await,
            Failure::Pause => {
                sleep(PAUSE).await;
                self.cluster.servers[server].resume();
            }
        }
        self.sell().await;
        wait_until_current(&streams_at(&self.cluster.url()).await).await;
    }

    /// Ends the sales, and checks that every replica stores messages as the leader, and has all of them.
    /// Returns the number of entries.
    async fn finish(mut self) -> (usize, Self) {
        let before = self.pause().await;
        let streams = streams_at(&self.cluster.url()).await;
        for number in 0..self.cluster.servers.len() {
            make_leader(&streams, &format!("n{number}")).await;
            self.servers[1].service().book_for("late", &self.events[number], 1).await.expect(201);
            let entries = expect_complete_at(&self.cluster.url(), &mut self.servers[0].admin()).await;
            assert_eq!(entries, before + number + 1, "under n{number}");
        }
        (before, self)
    }

    /// C3: with one server of three the stream has no leader, which readiness and `doctor` report.
    async fn expect_loss_of_leader(mut self) {
        let url = self.cluster.url();
        let database = self.servers[0].setup().url();
        let doctor = async || program().run(["doctor", "--database", &database, "--nats", &url]).await.stdout;
        let healthy = doctor().await;
        assert!(healthy.contains("nats: ok") && healthy.contains("3 replicas"), "{healthy}");
        self.cluster.servers[0].kill9();
        eventually("doctor reports a missing replica", async || {
            doctor().await.contains("the replica of the stream on n0 is").then_some(())
        })
        .await;
        self.cluster.servers[1].kill9();
        self.servers[0].service().book_for("later", &self.events[0], 1).await.expect(201);
        eventually("readiness reports it", async || {
            let ready = self.servers[0].anonymous().get("/readyz?verbose").await.json();
            let status = ready["nats"]["status"].as_str().unwrap_or_default();
            (ready["status"] == "degraded" && status.contains("has no leader")).then_some(())
        })
        .await;
        let found = doctor().await;
        assert!(found.contains("has no leader"), "{found}");
    }
}

/// Waits until the stream has a leader and two replicas that are current.
async fn wait_until_current(streams: &jetstream::Context) -> ClusterInfo {
    eventually("every replica is current", async || {
        let stream = streams.get_stream("BOXOFFICE").await.ok()?;
        let cluster = stream.cached_info().cluster.clone()?;
        let is_whole = cluster.leader.is_some()
            && cluster.replicas.len() == 2
            && cluster.replicas.iter().all(|replica| replica.current && !replica.offline);
        is_whole.then_some(cluster)
    })
    .await
}

/// Makes a server the leader of the stream.
async fn make_leader(streams: &jetstream::Context, name: &str) {
    let request = json!({"placement": {"preferred": name}});
    eventually("the server leads the stream", async || {
        let cluster = wait_until_current(streams).await;
        if cluster.leader.as_deref() == Some(name) {
            return Some(());
        }
        let result: Result<Value, _> = streams.request("STREAM.LEADER.STEPDOWN.BOXOFFICE", &request).await;
        drop(result);
        sleep(Duration::from_millis(500)).await;
        None
    })
    .await;
}

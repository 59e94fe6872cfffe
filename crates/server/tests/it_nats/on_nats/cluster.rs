//! Three NATS servers, one of which fails while tickets are sold: every entry is on the stream, once and in order.
//!
//! `CLUSTERS=3` kills, freezes and restarts each server so often.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::ClusterInfo;
use testkit::{
    Cluster, Ending, Load, NatsCluster, Server, Setup, event_body, eventually, number_from_environment,
};
use tokio::time::sleep;

use crate::listener::{complete_at, streams_at};
use crate::program;

/// How long a frozen server stands still: longer than its cluster waits before it elects another leader.
const FROZEN: Duration = Duration::from_secs(12);

/// What happens to a server.
#[derive(Clone, Copy, Debug)]
enum Failure {
    Kill,
    Freeze,
    Restart,
}

/// C2: a replica that catches up by a snapshot does not know the id of the last message, so a guard by that id ends
/// its stream.
#[tokio::test(flavor = "multi_thread")]
async fn c2_a_stream_that_gets_replicas_during_sales_goes_on() {
    let Some(mut sale) = Sale::start().await else {
        return println!("no current nats-server on this machine, so not tested");
    };
    sale.replicate().await;
    let leader = sale.leader().await;
    sale.fail(leader, Failure::Kill).await;
    let (entries, sale) = sale.end().await;
    println!("{entries} entries, one edit, one kill");
    sale.loses_its_leader().await;
}

/// The whole of it, where it is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn c2_every_server_fails_in_every_way() {
    let Some(rounds) = number_from_environment("CLUSTERS") else { return };
    let mut sale = Sale::start().await.expect("a current nats-server");
    sale.replicate().await;
    for _ in 0..rounds {
        for failure in [Failure::Kill, Failure::Freeze, Failure::Restart] {
            for server in 0..3 {
                sale.fail(server, failure).await;
            }
        }
    }
    let (entries, _) = sale.end().await;
    println!("{entries} entries, one edit, {rounds} times every failure of every server");
}

/// Two instances that sell while a cluster is changed beneath them.
struct Sale {
    cluster: NatsCluster,
    servers: Vec<Server>,
    loads: Vec<Load>,
    events: Vec<String>,
}

impl Sale {
    /// With a stream of one replica that has entries.
    async fn start() -> Option<Self> {
        let cluster = NatsCluster::start().await?;
        let database = Cluster::shared().await.database().await;
        let (mut servers, mut events) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let setup = Setup::new(program()).argument("--nats").argument(cluster.url());
            servers.push(setup.on_postgres(&database).start().await);
        }
        for _ in 0..4 {
            events.push(servers[0].admin().create_event(&event_body(1_000_000)).await);
        }
        let loads =
            servers.iter().zip(events.chunks(2)).map(|(server, events)| Load::start(server, events, 2));
        let mut sale = Self { cluster, loads: loads.collect(), servers, events };
        sale.sell().await;
        let streams = streams_at(&sale.cluster.url()).await;
        eventually("the stream has entries", async || {
            let stream = streams.get_stream("BOXOFFICE").await.ok()?;
            (stream.cached_info().state.messages > 50).then_some(())
        })
        .await;
        Some(sale)
    }

    /// Some more sales by every instance.
    async fn sell(&mut self) {
        for load in &mut self.loads {
            load.acknowledged(load.so_far() + 100).await;
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
        self.sell().await;
        current(&streams).await;
    }

    /// The place of the server that leads the stream.
    async fn leader(&self) -> usize {
        let info = current(&streams_at(&self.cluster.url()).await).await;
        self.cluster.place_of(&info.leader.expect("a leader"))
    }

    /// One server fails during sales, and comes back; then all replicas are current again.
    async fn fail(&mut self, server: usize, failure: Failure) {
        match failure {
            Failure::Kill => self.cluster.servers[server].kill9(),
            Failure::Freeze => self.cluster.servers[server].stop(),
            Failure::Restart => self.cluster.servers[server].terminate().await,
        }
        self.sell().await;
        match failure {
            Failure::Kill | Failure::Restart => self.cluster.servers[server].restart().await,
            Failure::Freeze => {
                sleep(FROZEN).await;
                self.cluster.servers[server].go_on();
            }
        }
        self.sell().await;
        current(&streams_at(&self.cluster.url()).await).await;
    }

    /// Ends the sale; how many entries are on the stream, all of them and in order.
    async fn end(mut self) -> (usize, Self) {
        for load in self.loads.drain(..) {
            assert!(!load.stop().await.is_empty());
        }
        let url = self.cluster.url();
        let before = complete_at(&url, &mut self.servers[0].admin()).await;
        for event in &self.events {
            self.servers[1].service().book_for("late", event, 1).await.expect(201);
        }
        let after = complete_at(&url, &mut self.servers[0].admin()).await;
        assert_eq!(after, before + self.events.len());
        current(&streams_at(&url).await).await;
        (after, self)
    }

    /// C3: with one server of three the stream has no leader, and everybody says so.
    async fn loses_its_leader(mut self) {
        let url = self.cluster.url();
        let doctor = async || {
            let setup = self.servers[0].setup();
            program().run(["doctor", "--database", &setup.url(), "--nats", &url]).await
        };
        let healthy = doctor().await;
        assert_eq!(healthy.ending, Ending::Code(0), "{healthy:?}");
        self.cluster.servers[0].kill9();
        eventually("doctor misses a replica", async || {
            let found = doctor().await;
            (found.ending == Ending::Code(1) && found.stdout.contains("the replica of the stream on n0 is"))
                .then_some(())
        })
        .await;
        self.cluster.servers[1].kill9();
        self.servers[0].service().book_for("later", &self.events[0], 1).await.expect(201);
        eventually("readiness says so", async || {
            let ready = self.servers[0].anonymous().get("/readyz?verbose").await.expect(200);
            let said = ready["nats"]["status"].as_str().expect("a status");
            (ready["status"] == "degraded" && said.contains("has no leader")).then_some(())
        })
        .await;
        let found = doctor().await;
        assert!(found.ending != Ending::Code(0) && found.stdout.contains("has no leader"), "{found:?}");
    }
}

/// Waits until the stream has a leader and two replicas that are current.
async fn current(streams: &jetstream::Context) -> ClusterInfo {
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

//! A cluster of three primaries, one of which has a replica that takes its place.

use palisade::authz::metering::{Measure, Quota};
use palisade::shared::{ACL, Config, Put, Taken, Want};

use super::sidecar::Sidecar;
use super::store::{FREE, Store, impatient};
use super::trust::{user, with_password};
use crate::support::{eventually, run};

const SLOTS: u32 = 16_384;

pub struct Cluster {
    primaries: Vec<Store>,
    /// Of the primary that has the state.
    replica: Store,
    /// Which primary has the state.
    at: usize,
}

impl Cluster {
    pub fn start() -> Self {
        let node = || {
            let node_timeout = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
            let fast = ["--repl-ping-replica-period", "1", "--cluster-port", FREE];
            Store::with(&[&node_timeout[..], &fast].concat())
        };
        let primaries: Vec<_> = (0..3).map(|_| node()).collect();
        let replica = node();
        for (at, primary) in (0_u32..).zip(&primaries) {
            let (first, last) = (SLOTS * at / 3, SLOTS * (at + 1) / 3 - 1);
            primary.ask::<()>(&format!("CLUSTER ADDSLOTSRANGE {first} {last}"));
            primary.ask::<()>(&format!("CLUSTER SET-CONFIG-EPOCH {}", at + 1));
        }
        for other in primaries.iter().skip(1).chain([&replica]) {
            primaries[0].ask::<()>(&format!("CLUSTER MEET 127.0.0.1 {} {}", other.port, other.other));
        }
        let slot: u32 = primaries[0].ask("CLUSTER KEYSLOT palisade:{state}:entries");
        let at = (0..3).find(|at| slot < SLOTS * (at + 1) / 3).unwrap() as usize;
        let id: String = primaries[at].ask("CLUSTER MYID");
        eventually("the nodes to know one another", || replica.try_ask::<()>(&["CLUSTER", "REPLICATE", &id]).ok());
        for node in primaries.iter().chain([&replica]) {
            user(node, ACL);
        }
        let cluster = Self { primaries, replica, at };
        eventually("the cluster", || {
            let all = cluster.primaries.iter().chain([&cluster.replica]);
            let is_up = |node: &Store| {
                let info = node.ask::<String>("CLUSTER INFO");
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:4")
            };
            let follows = cluster.replica.ask::<String>("INFO replication").contains("master_link_status:up");
            (all.into_iter().all(is_up) && follows).then_some(())
        });
        cluster
    }

    pub fn config(&self) -> Config {
        let config = Config { cluster: true, ..impatient(self.primaries.iter().map(Store::url).collect()) };
        with_password(&self.replica, "hunter2", config)
    }

    /// Kills the primary that has the state.
    pub fn fail(&mut self) {
        self.primaries[self.at].kill();
    }
}

#[test]
fn a_cluster_is_one_store_also_when_a_primary_fails() {
    let mut cluster = Cluster::start();
    let [one, two] = [Sidecar::new(cluster.config()), Sidecar::new(Config { replicas: 1, ..cluster.config() })];
    assert_eq!(one.put("a"), Ok(Put::Added));
    two.comes_to_know("a");
    // A busy replica may be late.
    eventually("its replica to have it too", || two.put("b").ok());
    one.comes_to_know("b");
    eventually("its replica to know it too", || two.remove("a").ok());
    one.comes_to_know_removed("a");
    // Budgets are all over the cluster.
    let measure = Measure::Quota(Quota { units: 5, seconds: 366 * 86_400 });
    for number in 0..32 {
        let key = [number; 32];
        for (sidecar, units) in [(&one, 3), (&two, 2)] {
            let taken = run(sidecar.shared.take(&key, &measure, Want { least: 1, most: 3 })).unwrap();
            assert!(matches!(taken, Taken::Lease(lease) if lease.units == units));
        }
        let uses = run(one.shared.uses(&format!("grant-{number}"), 3, 0, 9)).unwrap();
        assert_eq!(uses.granted, 3);
    }

    cluster.fail();
    one.learn("meanwhile");
    two.release("b");
    eventually("the replica to take its place", || {
        cluster.replica.ask::<String>("INFO replication").contains("role:master").then_some(())
    });
    two.comes_to_know("meanwhile");
    one.comes_to_know_removed("b");
    eventually("an addition", || one.put("after").ok());
    two.comes_to_know("after");
    one.in_touch();
    two.in_touch();
    // A sidecar that comes now finds it, though a seed is dead.
    let three = Sidecar::new(cluster.config());
    three.comes_to_know("meanwhile");
    three.comes_to_know_removed("a");
    three.comes_to_know_removed("b");
}

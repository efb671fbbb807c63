//! Sidecars and the ways in which a store can be set up: a cluster whose primary fails, TLS both ways, an ACL user.

use palisade::shared::{ACL, Config};

use super::budgets::{call, with_limit};
use super::{comes_to_say, lax, sidecar, start};
use crate::moving::{control, done, grant, granted_call, says};
use crate::shared::cluster::Cluster;
use crate::shared::trust::{authority, over_tls, user, with_password, with_tls};
use crate::support::ask::Ask;
use crate::support::{Setup, eventually};

const BOT: &str = "agent:spiffe://example.org/ns/agents/sa/support-bot";

/// A sidecar that is configured like this.
fn configured(config: &Config) -> Setup {
    let mut setup = sidecar("").set("shared", "urls", format!("{:?}", config.urls));
    setup = setup.set("shared", "cluster", config.cluster);
    if !config.user.is_empty() {
        setup = setup.set("shared", "user", format!("{:?}", config.user));
    }
    let files = [
        ("password_file", &config.password_file),
        ("ca_file", &config.ca_file),
        ("certificate_file", &config.certificate_file),
        ("key_file", &config.key_file),
    ];
    for (key, file) in files {
        if let Some(file) = file {
            setup = setup.set("shared", key, format!("{file:?}"));
        }
    }
    setup
}

#[test]
fn a_cluster_whose_primary_fails_costs_nothing_that_is_in_force() {
    let mut cluster = Cluster::start();
    let quota = "quota = { units = 40, seconds = 86400 }";
    let [one, two] = [(); 2].map(|()| start(with_limit(lax(configured(&cluster.config())), quota)));
    done(&one.setup, &["hold", BOT, "--reason", "INC-42"]);
    done(&one.setup, &["hold", "task:a", "--reason", "x"]);
    comes_to_say(&two, &Ask::permitted(), "held");
    grant(&two.setup, "20");
    assert_eq!(control(&two.setup, &["release", "task:a", "--reason", "x"]).0, 0);
    let passed: usize =
        (0..10).map(|_| usize::from(one.check(&call()).permits) + usize::from(two.check(&call()).permits)).sum();
    assert_eq!(passed, 20);
    cluster.fail();
    // Through all of it.
    eventually("a change that all have heard of", || {
        assert_eq!((says(&one, &Ask::permitted()), says(&two, &Ask::permitted())), ("held".into(), "held".into()));
        (control(&two.setup, &["hold", "task:b", "--reason", "x"]).0 == 0).then_some(())
    });
    for app in [&one, &two] {
        eventually("one state", || {
            let status = done(&app.setup, &["status"]);
            let holds = status["holds"].as_array()?;
            let of = |subject: &str| holds.iter().filter(|hold| hold["subject"] == subject).count();
            (of("task:a") == 0 && of(BOT) == 1 && of("task:b") >= 1 && status["store"] == "IN_TOUCH").then_some(())
        });
    }
    comes_to_say(&one, &granted_call("patch-bug"), "permit");
    let late = start(configured(&cluster.config()));
    comes_to_say(&late, &Ask::permitted(), "held");
}

#[test]
fn with_tls_both_ways_and_a_user_it_works_and_without_it_does_not() {
    let ours = authority("ours");
    let store = with_tls(&ours, "127.0.0.1", "yes");
    user(&store, ACL);
    let file = |name: &str| Some(store.dir.path().join(name));
    let config = over_tls(&store, file("ca.pem").unwrap());
    let config = Config { certificate_file: file("sidecar.pem"), key_file: file("sidecar.key"), ..config };
    let config = with_password(&store, "hunter2", config);
    let [one, two] = [(); 2].map(|()| start(configured(&config)));
    done(&one.setup, &["hold", BOT, "--reason", "INC-42"]);
    comes_to_say(&two, &Ask::permitted(), "held");
    let denied: Vec<String> = store.ask("ACL LOG 1");
    assert!(denied.is_empty(), "{denied:?}");
    let without = configured(&Config { certificate_file: None, key_file: None, ..config }).start();
    eventually("what is wrong", || without.get("/readyz").1.contains("the shared store cannot be used").then_some(()));
    without.check(&Ask::permitted()).assert_denial("state_unavailable", 503);
}

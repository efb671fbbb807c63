//! Who may use the store, and which store may be used.

use palisade::authz::metering::{Concurrent, Measure, Quota, Rate};
use palisade::shared::{ACL, Config, Entry, Lost, Shared, StoreState, Taken, Tombstone, Want};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::sidecar::{Memory, Sidecar, entry};
use super::store::{FREE, Store};
use crate::support::{CLIENTS, eventually, pem, run};

pub fn user(store: &Store, rules: &str) {
    let words = format!("ACL SETUSER sidecar reset on >hunter2 {rules}");
    store.try_ask::<()>(&words.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>()).unwrap();
}

fn as_user(store: &Store, password: &str) -> Config {
    with_password(store, password, store.config())
}

pub fn with_password(store: &Store, password: &str, config: Config) -> Config {
    let password_file = Some(store.file("password", password));
    Config { user: "sidecar".into(), password_file, ..config }
}

/// Everything that a sidecar does, once.
async fn everything(shared: &Shared, key: [u8; 32]) -> Result<(), Lost> {
    let id = format!("{}", key[0]);
    shared.put(&Entry { expires: Some(1_000_000_000), ..entry(&format!("over-{id}")) }).await?;
    shared.put(&entry(&id)).await?;
    shared.remove(&[Tombstone { id: id.as_str().into(), sealed: bytes::Bytes::new(), at: 0 }]).await?;
    for measure in [
        Measure::Rate(Rate { units: 9, seconds: 900, burst: None }),
        Measure::Quota(Quota { units: 9, seconds: 900 }),
        Measure::Concurrent(Concurrent { calls: 9, seconds: 900 }),
    ] {
        let key = {
            let mut key = key;
            key[1] = measure_number(&measure);
            key
        };
        let Taken::Lease(lease) = shared.take(&key, &measure, Want { least: 2, most: 2 }).await? else { continue };
        shared.give_back(&key, &measure, &lease, 1).await?;
        shared.give_back(&key, &measure, &lease, 2).await?;
    }
    shared.uses(&id, 1, 0, 1).await.map(|_| ())
}

fn measure_number(measure: &Measure) -> u8 {
    match measure {
        Measure::Rate(_) => 1,
        Measure::Quota(_) => 2,
        Measure::Concurrent(_) => 3,
    }
}

#[test]
fn a_user_needs_what_is_written_down_and_no_less() {
    let store = Store::start();
    user(&store, ACL);
    let one = Sidecar::new(as_user(&store, "hunter2\n"));
    run(everything(&one.shared, [0; 32])).unwrap();
    let forgotten = |id: u8| {
        let over = format!("HEXISTS palisade:{{state}}:entries over-{id}");
        move |store: &Store| !store.ask::<bool>(&over)
    };
    eventually("what is over to be forgotten", || forgotten(0)(&store).then_some(()));
    let denied: Vec<String> = store.ask("ACL LOG 1");
    assert!(denied.is_empty(), "{denied:?}");

    // For a script that the store has already, for `replicas`, for a cluster, for a database.
    let not_always = ["+eval", "+wait", "+cluster|slots", "+asking", "+select"];
    let rules: Vec<_> = ACL.split_whitespace().collect();
    for (at, rule) in rules.iter().enumerate().filter(|(_, rule)| !not_always.contains(rule)) {
        if !rule.starts_with('+') {
            continue;
        }
        let less: Vec<_> = rules.iter().filter(|other| *other != rule).copied().collect();
        user(&store, &less.join(" "));
        let two = Sidecar::alone(as_user(&store, "hunter2"));
        let number = u8::try_from(at).unwrap();
        eventually(&format!("a refusal without {rule}"), || match two.shared.state() {
            StoreState::Refused(why) => why.contains("NOPERM").then_some(()),
            StoreState::InTouch if *rule == "+subscribe" => panic!("in touch without {rule}"),
            StoreState::InTouch => {
                matches!(run(everything(&two.shared, [number; 32])), Err(Lost::Refused(_))).then_some(())
            }
            _ => None,
        });
    }
    // Without a key or the channel.
    for less in [ACL.replace("~palisade:{*}:*", "~other:*"), ACL.replace("&palisade:", "&other:")] {
        user(&store, &less);
        assert!(Sidecar::alone(as_user(&store, "hunter2")).refused().contains("NOPERM"));
    }
}

#[test]
fn a_wrong_password_is_refused_until_it_is_right() {
    let store = Store::start();
    user(&store, ACL);
    let one = Sidecar::alone(as_user(&store, "wrong-password"));
    let why = one.refused();
    assert!(why.contains("wrong user or password") && !why.contains("wrong-password"), "{why}");
    assert!(matches!(one.put("a"), Err(Lost::Refused(_))));
    store.file("password", "hunter2");
    one.in_touch();
    // One that is needed and not there.
    store.ask::<()>("ACL SETUSER default >hunter3");
    assert!(Sidecar::alone(store.config()).refused().contains("wrong user or password"));
}

#[test]
fn a_store_that_throws_anything_out_is_refused() {
    let store = Store::with(&["--maxmemory-policy", "allkeys-lru"]);
    let one = Sidecar::alone(store.config());
    assert!(one.refused().contains("maxmemory-policy"), "{}", one.refused());
    assert!(one.put("a").is_err() && store.ask::<usize>("DBSIZE") == 0);
    store.ask::<()>("CONFIG SET maxmemory-policy volatile-lru");
    one.in_touch();
    eventually("it to be given", || store.ask::<bool>("HEXISTS palisade:{state}:entries a").then_some(()));
}

#[test]
fn what_is_configured_and_cannot_be_had_stops_the_start() {
    let start = |config| Shared::start(config, std::sync::Arc::new(Memory::default()), CLIENTS.handle()).err();
    let config = |url: &str| Config { urls: vec![url.into()], ..Config::default() };
    assert!(start(config("redis://me:hunter2@127.0.0.1")).is_some_and(|error| !error.to_string().contains("hunter2")));
    assert!(start(Config { ca_file: Some("/nowhere".into()), ..config("rediss://127.0.0.1") }).is_some());
    assert!(start(Config { password_file: Some("/nowhere".into()), ..config("rediss://127.0.0.1") }).is_some());
    assert!(start(Config::default()).is_some());
}

pub type Authority = CertifiedIssuer<'static, KeyPair>;

pub fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate of a name and its key, as files.
fn identity(dir: &std::path::Path, authority: &Authority, file: &str, name: &str) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.signed_by(&key, authority).unwrap();
    std::fs::write(dir.join(format!("{file}.pem")), pem("CERTIFICATE", certificate.der())).unwrap();
    std::fs::write(dir.join(format!("{file}.key")), pem("PRIVATE KEY", &key.serialize_der())).unwrap();
}

/// A store with TLS, whose certificate is of this name.
pub fn with_tls(authority: &Authority, name: &str, clients: &str) -> Store {
    let dir = tempfile::tempdir().unwrap();
    identity(dir.path(), authority, "store", name);
    identity(dir.path(), authority, "sidecar", "sidecar.test");
    std::fs::write(dir.path().join("ca.pem"), pem("CERTIFICATE", authority.der())).unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let [certificate, key, ca] = [path("store.pem"), path("store.key"), path("ca.pem")];
    let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let more = ["--tls-port", FREE, "--tls-auth-clients", clients];
    Store::within(dir, &[&files[..], &more].concat())
}

pub fn over_tls(store: &Store, ca_file: std::path::PathBuf) -> Config {
    let urls = vec![format!("rediss://127.0.0.1:{}", store.other)];
    Config { urls, ca_file: Some(ca_file), ..store.config() }
}

#[test]
fn a_store_proves_who_it_is() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let store = with_tls(&ours, "127.0.0.1", "no");
    let right = over_tls(&store, store.dir.path().join("ca.pem"));
    let one = Sidecar::new(right.clone());
    one.put("a").unwrap();
    Sidecar::new(store.config()).comes_to_know("a");
    // Another authority's.
    let wrong = Sidecar::alone(over_tls(&store, store.file("theirs.pem", &pem("CERTIFICATE", theirs.der()))));
    assert!(wrong.refused().contains("UnknownIssuer"), "{}", wrong.refused());
    assert!(wrong.put("b").is_err());
    // One of another name.
    let other = with_tls(&ours, "other.test", "no");
    let wrong = Sidecar::alone(over_tls(&other, other.dir.path().join("ca.pem")));
    assert!(wrong.refused().contains("certificate"), "{}", wrong.refused());
    // No TLS where there has to be.
    let plain = Config { urls: vec![format!("rediss://127.0.0.1:{}", store.port)], ..right };
    Sidecar::alone(plain).lost();
}

#[test]
fn a_sidecar_proves_who_it_is() {
    let ours = authority("ours");
    let store = with_tls(&ours, "127.0.0.1", "yes");
    let without = over_tls(&store, store.dir.path().join("ca.pem"));
    let file = |name| Some(store.dir.path().join(name));
    let with = Config { certificate_file: file("sidecar.pem"), key_file: file("sidecar.key"), ..without.clone() };
    Sidecar::new(with).put("a").unwrap();
    let nobody = Sidecar::alone(without);
    eventually("a refusal", || (!matches!(nobody.shared.state(), StoreState::Starting)).then_some(()));
    assert_ne!(nobody.shared.state(), StoreState::InTouch);
}

#[test]
fn the_rules_that_are_documented_are_those_that_are_tested() {
    let documented = include_str!("../../../docs/control.md");
    assert!(documented.contains(&ACL.split_whitespace().collect::<Vec<_>>().join(" ")));
}

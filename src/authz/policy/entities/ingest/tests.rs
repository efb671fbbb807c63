//! A store holds what Cedar's own entities hold, whichever way it came to be.

mod histories;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use cedar_policy::Entities;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value as Json, json};

use super::*;
use crate::authz::policy::cedar;

/// A type of each kind that Cedar has.
const SCHEMA: &str = r#"
entity Colour enum ["red", "green"];
entity Agent in [Folder, Namespace, TrustDomain] = { spiffe_id: String, trust_domain: String, namespace?: String, service_account?: String };
entity TrustDomain; entity Namespace;
entity Folder in [Folder, Thing] = { size?: Long };
entity Thing in [Folder, Thing] = {
  yes?: Bool, number?: Long, text?: String, words?: Set<String>, sets?: Set<Set<Long>>,
  nested?: { a: Long, b?: { "c d": String, e: Set<ipaddr> } }, friend?: Thing, friends?: Set<Thing>, colour?: Colour,
  ip?: ipaddr, price?: decimal, born?: datetime, lasts?: duration,
} tags Set<String>;
"#;

fn schema() -> &'static Schema {
    static READ: LazyLock<Schema> = LazyLock::new(|| Schema::from_cedarschema_str(SCHEMA).unwrap().0);
    &READ
}

fn read(schema: &Schema, files: &[(&str, String)], previous: Option<&Store>) -> Result<Store, BundleError> {
    let sources: Vec<Source<'_>> = files.iter().map(|(name, text)| Source { name, text, own: false }).collect();
    Ingest::read(schema, &[("schema", SCHEMA)], &sources, previous)?.settle()
}

fn refused(text: impl Into<String>) -> String {
    read(schema(), &[("a", text.into())], None).map(|store| store.len()).unwrap_err().to_string()
}

fn uid(ty: &str, id: &str) -> EntityUID {
    cedar::uid(&cedar::entity_type(ty).unwrap(), id)
}

/// Everything that is said of an entity.
fn transcript(entity: &Entity) -> String {
    let mut ancestors: Vec<_> = entity.ancestors().map(ToString::to_string).collect();
    let mut parents: Vec<_> = entity.parents().map(ToString::to_string).collect();
    ancestors.sort();
    parents.sort();
    let attributes: Vec<_> = entity.attrs().map(|(name, value)| format!("{name}: {value}")).collect();
    let tags: Vec<_> = entity.tags().map(|(name, value)| format!("{name}: {value}")).collect();
    format!("{attributes:?} {tags:?} {parents:?} {ancestors:?}")
}

fn content(store: &Store) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    store.for_each(|entity| {
        let uid = entity.uid().clone();
        assert_eq!(store.get(&uid).map(|again| transcript(&again)), Some(transcript(&entity)));
        assert!(store.contains(&uid));
        assert_eq!(all.insert(uid.to_string(), transcript(&entity)), None);
    });
    assert_eq!(all.len(), store.len());
    all
}

/// One entity, to be made of random numbers: its attributes by the bits of `has`.
#[derive(Clone, Debug)]
struct Random {
    is_folder: bool,
    parents: Vec<(Index, bool)>,
    has: u16,
    number: i64,
    text: String,
    tags: BTreeMap<String, Vec<String>>,
}

fn random() -> impl Strategy<Value = Random> {
    let text = "[a-zé\"\\\\\u{1F600} ]{0,30}";
    let parents = proptest::collection::vec((any::<Index>(), any::<bool>()), 0..4);
    let tags = proptest::collection::btree_map("[a-z ]{0,12}", proptest::collection::vec("[a-z]{0,3}", 0..4), 0..3);
    (any::<bool>(), parents, any::<u16>(), any::<i64>(), text, tags).prop_map(
        |(is_folder, parents, has, number, text, tags)| Random { is_folder, parents, has, number, text, tags },
    )
}

fn name(at: usize, random: &Random) -> Json {
    json!({"type": if random.is_folder { "Folder" } else { "Thing" }, "id": format!("n{at} {}", "é".repeat(at % 9))})
}

/// The entity at a place of a list, in some of those before it, often in the one right before.
fn element(all: &[Random], at: usize) -> Json {
    let random = &all[at];
    let parents: Vec<Json> = (random.parents.iter())
        .filter(|_| at > 0)
        .map(|(index, is_last)| if *is_last { at - 1 } else { index.index(at) })
        .map(|parent| name(parent, &all[parent]))
        .collect();
    if random.is_folder {
        return json!({"uid": name(at, random), "attrs": {"size": random.number}, "parents": parents});
    }
    let (number, text) = (random.number, &random.text);
    let ms = number % 1_000_000_000_000;
    let ip = format!("10.{}.{}.0/24", number.rem_euclid(256), number.rem_euclid(251));
    let nested = json!({"a": number, "b": {"c d": text, "e": [ip, "::1", "10.0.0.1"]}});
    let attributes = [
        ("yes", json!(number % 2 == 0)),
        ("number", json!(number)),
        ("text", json!(text)),
        ("words", json!([text, "b", text])),
        ("sets", json!([[number, 1], [], [1, number]])),
        ("nested", if number % 3 == 0 { json!({"a": number}) } else { nested }),
        ("friend", json!({"type": "Thing", "id": text})),
        ("friends", json!([{"__entity": {"type": "Thing", "id": text}}, {"type": "Thing", "id": ""}])),
        ("colour", json!({"type": "Colour", "id": "green"})),
        ("ip", json!(ip)),
        ("price", json!(format!("{}.{:04}", number % 1_000_000, number.rem_euclid(10_000)))),
        (
            "born",
            json!({"fn": "offset", "args": [{"fn": "datetime", "args": ["2026-03-04"]}, {"fn": "duration", "args": [format!("{ms}ms")]}]}),
        ),
        ("lasts", json!(format!("{ms}ms"))),
    ];
    let attributes: serde_json::Map<String, Json> = (attributes.into_iter().enumerate())
        .filter(|(at, _)| random.has >> at & 1 == 1)
        .map(|(_, (name, value))| (name.to_owned(), value))
        .collect();
    json!({"uid": name(at, random), "attrs": attributes, "parents": parents, "tags": random.tags})
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Attributes, tags, parents and ancestors are those that Cedar's own reader and closure come to.
    #[test]
    fn it_holds_what_cedar_holds(all in proptest::collection::vec(random(), 1..40), split in any::<Index>()) {
        let schema = schema();
        let elements: Vec<Json> = (0..all.len()).map(|at| element(&all, at)).rev().collect();
        let (first, second) = elements.split_at(split.index(elements.len()));
        let files = [("a", Json::from(first).to_string()), ("b", Json::from(second).to_string())];
        let store = read(schema, &files, None).unwrap();
        let theirs = Entities::from_json_value(elements.into(), Some(schema)).unwrap();
        let theirs: &cedar::Entities = theirs.as_ref();
        let of_cedar: Vec<&Entity> = theirs.iter().filter(|entity| !entity.uid().is_action()).collect();
        prop_assert_eq!(of_cedar.len(), store.len());
        for entity in of_cedar {
            let mine = store.get(entity.uid()).unwrap();
            prop_assert!(mine.deep_eq(entity), "{}", entity.uid());
            prop_assert_eq!(transcript(&mine), transcript(entity));
        }
    }
}

fn folder(id: &str, parents: &[&str]) -> Json {
    let parents: Vec<Json> = parents.iter().map(|id| json!({"type": "Folder", "id": id})).collect();
    json!({"uid": {"type": "Folder", "id": id}, "attrs": {}, "parents": parents})
}

fn chain(length: usize) -> Json {
    (0..length)
        .map(|at| match at.checked_sub(1) {
            Some(above) => folder(&at.to_string(), &[&above.to_string()]),
            None => folder("0", &[]),
        })
        .collect()
}

#[test]
fn a_hierarchy_has_at_most_64_levels() {
    for levels in [1, 20, 64] {
        let store = read(schema(), &[("a", chain(levels + 1).to_string())], None).unwrap();
        let lowest = store.get(&uid("Folder", &levels.to_string())).unwrap();
        assert_eq!(lowest.ancestors().count(), levels);
    }
    assert_eq!(refused(chain(66).to_string()), "a:1: what is in `Folder::\"64\"` has more than 64 levels above it");
    assert!(refused(chain(10_000).to_string()).contains("more than 64 levels"));
    let Json::Array(mut upside_down) = chain(200) else { panic!() };
    upside_down.reverse();
    assert!(refused(Json::from(upside_down).to_string()).contains("more than 64 levels"));
    // An update from above, or from below, is held to the same.
    let schema = schema();
    let store = read(schema, &[("a", chain(65).to_string())], None).unwrap();
    let top = [folder("top", &[]), folder("0", &["top"])].map(|json| json.to_string());
    let error = store.apply(schema, &top.each_ref().map(|text| Change::Upsert(text))).unwrap_err();
    assert!(error.message.contains("more than 64 levels"), "{error}");
    let error = store.apply(schema, &[Change::Upsert(&folder("x", &["64"]).to_string())]).unwrap_err();
    assert_eq!(error.message, "what is in `Folder::\"64\"` has more than 64 levels above it");
}

#[test]
fn an_entity_has_at_most_4096_ancestors() {
    let mut all: Vec<Json> = (0..=4_096).map(|at| folder(&at.to_string(), &[])).collect();
    let names: Vec<String> = (0..=4_096).map(|at| at.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    all.push(folder("x", &names[..4_096]));
    assert_eq!(read(schema(), &[("a", Json::from(all.clone()).to_string())], None).unwrap().len(), 4_098);
    all.push(folder("y", &names));
    assert!(refused(Json::from(all).to_string()).contains("is in more than 4096 entities"));
}

#[test]
fn what_is_in_itself_is_refused() {
    assert_eq!(
        refused(json!([folder("a", &["a"])]).to_string()),
        "a:1: `Folder::\"a\"` is in itself, by way of what it is in"
    );
    let circle: Json = (0..7).map(|at| folder(&at.to_string(), &[&((at + 1) % 7).to_string()])).collect();
    assert_eq!(refused(circle.to_string()), "a:1: `Folder::\"0\"` is in itself, by way of what it is in");
}

#[test]
fn of_several_circles_the_same_is_told_whatever_was_there_before() {
    let as_texts = |all: [(&'static str, Json); 2]| all.map(|(name, folders)| (name, folders.to_string()));
    let circles = [folder("x", &["x"]), folder("y", &["y"])];
    let circles = as_texts([("a", circles.into_iter().collect()), ("b", json!([folder("z", &["y"])]))]);
    let before = [
        [("a", json!([folder("x", &[]), folder("y", &[])])), ("b", json!([]))],
        [("a", json!([folder("x", &[])])), ("b", json!([folder("y", &["x"]), folder("z", &["y"])]))],
        [("a", json!([folder("y", &[])])), ("b", json!([folder("x", &["y"]), folder("z", &["x"])]))],
    ];
    let anew = read(schema(), &circles, None).map(drop).unwrap_err();
    for files in before {
        let store = read(schema(), &as_texts(files), None).unwrap();
        assert_eq!(read(schema(), &circles, Some(&store)).map(drop), Err(anew.clone()));
    }
}

#[test]
fn what_is_no_list_of_entities_is_refused_with_its_line() {
    let entity = r#"{"uid":{"type":"Thing","id":"x"},"attrs":{},"parents":[]}"#;
    let cases = [
        ("", "a:1: EOF while parsing a value"),
        ("\n\n[", "a:3: EOF while parsing a list"),
        ("[] []", "a:1: trailing characters"),
        ("[1]", "a: every entity has to be an object"),
        ("[null]", "a: every entity has to be an object"),
        ("[{}]", "a:1: every entity needs `\"uid\": {\"type\": …, \"id\": …}`"),
        ("[\n{\"uid\":{\"type\":\"Thing\",\"id\":\"\\ud800\"}}]", "a:2: unexpected end of hex escape"),
    ];
    for (text, message) in cases {
        assert_eq!(refused(text), message, "{text}");
    }
    for (rest, message) in [
        (",]", "a:2: trailing comma"),
        ("", "a:2: EOF while parsing a list"),
        (" x]", "a:2: expected `,` or `]`"),
        ("]\n]", "a:3: trailing characters"),
        (",\n{\"uid\":{\"type\":\"Thing\",\"id\":\"y\",\"id\":\"z\"}}]", "a:3: duplicate member `id`"),
        // Whatever a name is spelled like.
        (
            ",\n{\"uid\":{\"type\":\"Thing\",\"id\":\"y\"},\"attrs\":{},\n\"\\u0061ttrs\":{}}]",
            "a:4: duplicate member `attrs`",
        ),
        (
            ",\n{\"uid\":{\"type\":\"Thing\",\"id\":\"y\"},\"attrs\":{\"nested\":{\"a\":1,\"a\":1}}}]",
            "a:3: duplicate member `a`",
        ),
        // Two forms in one object: which is meant?
        (
            ",\n{\"uid\":{\"type\":\"Thing\",\"id\":\"y\",\"__entity\":{\"type\":\"Agent\",\"id\":\"z\"}}}]",
            "a:3: every entity needs `\"uid\": {\"type\": …, \"id\": …}`",
        ),
        (
            ",\n{\"uid\":{\"type\":\"Thing\",\"id\":\"y\"},\"parents\":[{\"__entity\":{\"type\":\"Thing\",\"id\":\"x\"}}]}]",
            "a:3: every parent needs `{\"type\": …, \"id\": …}` and nothing else",
        ),
        (
            ",\n{\"uid\":{\"type\":\"Colour\",\"id\":\"blue\"},\"attrs\":{},\"parents\":[]}]",
            "a:3: entity does not conform to the schema: entity `Colour::\"blue\"` is of an enumerated entity type, but `\"blue\"` is not declared as a valid eid",
        ),
    ] {
        assert_eq!(refused(format!("[{entity}\n{rest}")), message, "{rest}");
    }
}

#[test]
fn what_is_too_large_or_too_deep_is_refused() {
    let thing =
        |attributes: &str| format!(r#"[{{"uid":{{"type":"Thing","id":"x"}},"attrs":{{{attributes}}},"parents":[]}}]"#);
    assert_eq!(
        refused(thing(&format!(r#""text":"{}""#, "x".repeat(MAX_ENTITY_BYTES)))),
        "a:1: an entity is larger than 1 MiB"
    );
    let large = read(schema(), &[("a", thing(&format!(r#""text":"{}""#, "x".repeat(1_000_000))))], None).unwrap();
    assert_eq!(large.len(), 1);
    assert_eq!(
        refused(thing(&format!(r#""sets":{}1{}"#, "[".repeat(300), "]".repeat(300)))),
        "a:1: recursion limit exceeded"
    );
    let endless = "[".repeat(300_000);
    assert!(refused(thing(&format!(r#""sets":{endless}"#))).starts_with("a:1: "));
    assert!(refused(endless).starts_with("a:"));
}

#[test]
fn the_same_twice_is_once_and_stays_until_both_are_gone() {
    let schema = schema();
    let one = json!([folder("x", &[])]).to_string();
    let other = json!([folder("x", &[]), folder("y", &[])]).to_string();
    let both = [("a", one.clone()), ("b", other.clone())];
    let store = read(schema, &both, None).unwrap();
    assert_eq!(store.len(), 2);
    assert_eq!(read(schema, &[("b", other)], Some(&store)).unwrap().len(), 2);
    assert_eq!(read(schema, &[("a", one)], Some(&store)).unwrap().len(), 1);
    let twice = json!([folder("x", &[]), folder("x", &[])]).to_string();
    assert_eq!(read(schema, &[("a", twice)], Some(&store)).unwrap().len(), 1);
    let text = format!(
        "[{},\n{}]",
        folder("x", &[]),
        json!({"uid": {"type": "Folder", "id": "x"}, "attrs": {"size": 1}, "parents": []})
    );
    assert_eq!(
        refused(text),
        "a:2: duplicate entity entry `Folder::\"x\"`: there is another one in `a`, which differs"
    );
}

#[test]
fn changes_are_held_to_what_files_may_say() {
    let schema = schema();
    let store = read(schema, &[("a", json!([folder("x", &[]), folder("y", &["x"])]).to_string())], None).unwrap();
    let text = |json: Json| json.to_string();
    let refused = |changes: &[Change<'_>]| store.apply(schema, changes).map(|_| ()).unwrap_err().to_string();
    assert_eq!(
        refused(&[Change::Remove(uid("Folder", "x"))]),
        "`Folder::\"y\"` is in `Folder::\"x\"`, which nothing in the bundle declares"
    );
    assert_eq!(
        refused(&[Change::Remove(uid("Folder", "z"))]),
        "`Folder::\"z\"` cannot be removed: nothing in the bundle declares it"
    );
    assert_eq!(
        refused(&[Change::Remove(uid("Server", "crm"))]),
        "`Server::\"crm\"`: entities of type Server come from targets.toml and *.tools.json"
    );
    assert!(refused(&[Change::Upsert("{}")]).starts_with("every entity needs"));
    assert!(refused(&[Change::Upsert("[")]).starts_with("EOF"));
    assert!(
        refused(&[Change::Upsert(&text(folder("z", &["nobody"])))]).contains("which nothing in the bundle declares")
    );
    assert!(refused(&[Change::Upsert(&text(folder("x", &["y"])))]).contains("is in itself"));
    // In one go the same is fine, in any order: only the end counts.
    let turned = [text(folder("x", &["y"])), text(folder("y", &[]))];
    let turned = store.apply(schema, &turned.each_ref().map(|text| Change::Upsert(text))).unwrap();
    assert!(turned.get(&uid("Folder", "x")).unwrap().is_child_of(&uid("Folder", "y")));
    let gone = [Change::Remove(uid("Folder", "x")), Change::Remove(uid("Folder", "y"))];
    assert!(store.apply(schema, &gone).unwrap().is_empty());
    assert!(store.get(&uid("Folder", "y")).unwrap().is_child_of(&uid("Folder", "x")));
}

#[test]
fn agents_are_completed_and_counted() {
    let schema = schema();
    let id = "spiffe://example.org/ns/agents/sa/x";
    let agent = json!({"uid": {"type": "Agent", "id": id}, "parents": [{"type": "Folder", "id": "f"}]});
    let store = read(schema, &[("a", json!([agent, folder("f", &[])]).to_string())], None).unwrap();
    assert_eq!(store.listed_agents(), 1);
    let entity = store.get(&uid("Agent", id)).unwrap();
    let ancestors: BTreeSet<String> = entity.ancestors().map(ToString::to_string).collect();
    let expected = ["Folder::\"f\"", "Namespace::\"example.org/agents\"", "TrustDomain::\"example.org\""];
    assert_eq!(ancestors, expected.map(str::to_owned).into());
    assert_eq!(entity.attrs_len(), 4);
    assert_eq!(store.apply(schema, &[Change::Remove(uid("Agent", id))]).unwrap().listed_agents(), 0);
}

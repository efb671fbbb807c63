//! What the configuration takes and refuses, and that every mistake is told with its place.

use std::collections::BTreeSet;

use super::*;

const GOOD: &str = "[[listener]]\ntcp = \"127.0.0.1:0\"\n[identity]\ntrust_domains = [\"example.org\"]\n";

fn parse(text: &str) -> Result<Config, String> {
    Config::parse("palisade.toml", text, Path::new("/etc/palisade")).map_err(|error| error.to_string())
}

#[test]
fn the_printed_file_is_the_default() {
    let mut printed: Config = toml::from_str(DEFAULT).unwrap();
    assert_eq!(printed.listener.len(), 1);
    assert_eq!(printed.listener[0].tcp, Some("127.0.0.1:9191".parse().unwrap()));
    printed.listener.clear();
    assert_eq!(printed, Config::default());
}

/// The names that would have been taken in the place of an unknown one: serde says all of them.
fn known_names(text: &str) -> Vec<String> {
    let error = parse(text).unwrap_err();
    let (_, expected) = error.split_once("unknown field `nobodys_key`, expected ").unwrap_or_else(|| panic!("{error}"));
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Both ways: no key of the types is missing in the file, and no key of the file, commented out or not, is
/// unknown to the types. A new setting that nobody documents fails here.
#[test]
fn every_key_is_printed() {
    let mut keys = BTreeSet::new();
    for table in known_names("nobodys_key = 1\n") {
        let several = ["issuer", "listener", "token", "tool_server", "trust_domain"].contains(&&*table);
        let header = if several { format!("[[{table}]]") } else { format!("[{table}]") };
        keys.extend(known_names(&format!("{header}\nnobodys_key = 1\n")).iter().map(|key| format!("{table}.{key}")));
    }
    let mut printed = BTreeSet::new();
    let mut table = "";
    for line in DEFAULT.lines() {
        let line = line.trim_start_matches("# ");
        if let Some(name) = line.strip_prefix('[') {
            table = name.split(']').next().unwrap_or_default().trim_matches('[');
        }
        let Some((key, _)) = line.split_once(" = ") else { continue };
        if key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            assert!(printed.insert(format!("{table}.{key}")), "{table}.{key} is there twice");
        }
    }
    assert_eq!(printed, keys);
    assert!(keys.contains("listener.unix_mode_octal") && keys.contains("runtime.worker_threads"), "{keys:?}");
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let config = parse("[[listener]]\nunix = \"a.sock\"\n[identity]\ntrust_domains = [\"example.org\"]\n[record]\npath = \"r.jsonl\"\n").unwrap();
    assert_eq!(config.bundle.path, Path::new("/etc/palisade/cedar"));
    assert_eq!(config.record.path.as_deref(), Some(Path::new("/etc/palisade/r.jsonl")));
    assert_eq!(config.listener[0].unix.as_deref(), Some(Path::new("/etc/palisade/a.sock")));
}

/// Also where the TOML reader says more than one line.
#[test]
fn mistakes_are_one_line() {
    for text in [
        "[[listener@reason(\" \"a\"\n",
        "[[listener",
        "[a",
        "a",
        "a = ",
        "a = 'x",
        "a = \"\"\"\n\n",
        "[[b]c]\n\"\"\"d\ne\"",
    ] {
        let message = parse(text).unwrap_err();
        assert!(message.starts_with("palisade.toml:") && !message.contains('\n'), "{message}");
    }
}

#[test]
fn mistakes_name_file_line_and_key() {
    let good = GOOD;
    assert!(parse(good).is_ok());
    for (text, message) in [
        (format!("{good}[log]\nlevl = \"info\"\n"), "palisade.toml:6: unknown field `levl`"),
        (format!("{good}[lgo]\n"), "palisade.toml:5: unknown field `lgo`"),
        (format!("{good}[time]\nzone = \"Mars/Olympus\"\n"), "palisade.toml:6: `time.zone`"),
        (format!("{good}[limits]\njson_depth = 0\n"), "palisade.toml:6: `json_depth` has to be from 1 to 128"),
        (format!("{good}[limits]\njson_depth = 1000\n"), "palisade.toml:6: `json_depth` has to be from 1 to 128"),
        (format!("{good}[limits]\nbody_bytes = -1\n"), "palisade.toml:6: `limits.body_bytes`: invalid value"),
        (format!("{good}[server]\ndeadline_ms = \"soon\"\n"), "palisade.toml:6: `server.deadline_ms`: invalid type"),
        (format!("{good}[server]\ndeadline_ms = 1.5\n"), "palisade.toml:6: `server.deadline_ms`: invalid type"),
        (format!("{good}[bundle]\n\nwatch = 1\n"), "palisade.toml:7: `bundle.watch`: invalid type"),
        (format!("log = {{ level = 3 }}\n{good}"), "palisade.toml:1: `log.level`: "),
        (format!("{good}server = 3\n"), "palisade.toml:5: unknown field `server`"),
        (format!("server = 3\n{good}"), "palisade.toml:1: `server`: invalid type"),
        (
            "[[listener]]\ntcp = \"127.0.0.1:0\"\n[identity]\ntrust_domains = [\n  \"example.org\",\n  7,\n]\n".into(),
            "palisade.toml:6: `identity.trust_domains`: invalid type",
        ),
        (format!("{good}[listener]\n"), "palisade.toml:5: `listener`: "),
        (format!("{good}[server]\ndeadline_ms =\n"), "palisade.toml:6: `server.deadline_ms`: "),
        (
            format!("{good}[server]\ndeadline_ms = 1\ndeadline_ms = 2\n"),
            "palisade.toml:7: `deadline_ms`: duplicate key",
        ),
        (format!("{good}[server]\n[log]\n[server]\n"), "palisade.toml:7: `server`: duplicate key"),
        (format!("{good}[admin]\nlisten = 9192\n"), "palisade.toml:6: `admin.listen`: "),
        (
            format!("{good}[[listener]]\ntcp = \"127.0.0.1:0\"\nidentity = \"header\"\n"),
            "palisade.toml:7: `listener.identity`: unknown variant `header`",
        ),
        (format!("{good}[[listener]]\n"), "palisade.toml:5: a `[[listener]]` has either"),
        (
            format!("{good}[[listener]]\nunix = \"b\"\nunix_mode_octal = \"0999\"\n"),
            "palisade.toml:7: `unix_mode_octal`: `0999` is no octal permission",
        ),
        (format!("{good}[[listener]]\nunix = \"{}\"\n", "x".repeat(100)), "palisade.toml:6: `listener.unix`: a Unix"),
        (
            format!("{good}[[listener]]\nunix = \"a\"\n[[listener]]\nunix = \"a\"\n"),
            "palisade.toml:8: `listener.unix`: another listener",
        ),
        (
            format!("{good}[record]\nwhen_unwritable = \"allow\"\n"),
            "palisade.toml:6: `record.when_unwritable`: unknown variant `allow`",
        ),
        (format!("{good}[server]\ncheck_message_bytes = 10\n"), "palisade.toml:6: `check_message_bytes`"),
        (format!("{good}[limits]\nbody_bytes = 200000\n"), "palisade.toml:6: `check_message_bytes` has to hold"),
        (format!("{good}[server]\nin_flight_checks = 1024\n"), "palisade.toml:6: `in_flight_checks` has to be below"),
        (format!("{good}[server]\n streams_per_connection = 512\n"), "palisade.toml:6: `in_flight_checks` has to be"),
        (format!("{good}[server]\ndrain_seconds = 1\ndeadline_ms = 1001\n"), "palisade.toml:6: `drain_seconds`"),
        (format!("{good}[server]\ndeadline_ms = 10001\n"), "palisade.toml:6: `drain_seconds` has to be at least"),
        (format!("server.keepalive_seconds = 0\n{good}"), "palisade.toml:1: `keepalive_seconds` has to be from 1"),
        (format!("{good}[telemetry]\npermit_sample_ratio = 2\n"), "palisade.toml:6: `permit_sample_ratio`"),
        ("[[listener]]\ntcp = \"127.0.0.1:0\"\n".into(), "`identity.trust_domains` is empty"),
        ("[[listener]]\ntcp = \"127.0.0.1:0\"\nunix = \"x\"\n".into(), "palisade.toml:1: a `[[listener]]` has either"),
        ("x".into(), "palisade.toml:1: "),
        (String::new(), "palisade.toml: there is no `[[listener]]`"),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(error.contains(message), "{error} / {message}");
    }
}

/// What the parsers of Rust say is said in the words of the file.
#[test]
fn mistakes_are_told_in_plain_words() {
    let address = "no address and port; expected them as in `127.0.0.1:9191`";
    for (text, message) in [
        (
            "[listener]\ntcp = \"127.0.0.1:0\"\n".to_owned(),
            "1: `listener`: a table of which there can be several; expected `[[…]]` around its name",
        ),
        (format!("{GOOD}[admin]\nlisten = \"9192\"\n"), &*format!("6: `admin.listen`: {address}")),
        ("[[listener]]\ntcp = \"localhost\"\n".to_owned(), &*format!("2: `listener.tcp`: {address}")),
        (
            format!("{GOOD}[limits]\nbody_bytes = \"64k\"\n"),
            "6: `limits.body_bytes`: invalid type: string \"64k\", expected a whole number",
        ),
    ] {
        assert_eq!(parse(&text).unwrap_err().trim_end(), format!("palisade.toml:{message}"));
    }
}

/// What could not be bound can be told without binding.
#[test]
fn two_sockets_need_two_addresses() {
    let with = |first: &str, second: &str, admin: &str| {
        let listeners = format!("[[listener]]\ntcp = \"{first}\"\n[[listener]]\ntcp = \"{second}\"\n");
        parse(&format!("{listeners}[identity]\ntrust_domains = [\"example.org\"]\n[admin]\nlisten = \"{admin}\"\n"))
    };
    for (first, second, admin, place) in [
        ("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:3", "4: `listener.tcp`"),
        ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:2", "8: `admin.listen`"),
        ("0.0.0.0:1", "127.0.0.1:2", "127.0.0.1:1", "8: `admin.listen`"),
        ("10.0.0.1:1", "127.0.0.1:2", "0.0.0.0:1", "8: `admin.listen`"),
        ("[::1]:1", "[::]:1", "127.0.0.1:2", "4: `listener.tcp`"),
    ] {
        let error = with(first, second, admin).unwrap_err();
        assert!(error.starts_with(&format!("palisade.toml:{place}: a listener has the address")), "{error}");
    }
    for (first, second, admin) in [
        ("127.0.0.1:1", "127.0.0.2:1", "10.0.0.1:1"),
        ("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"),
        ("127.0.0.1:1", "[::1]:1", "127.0.0.1:2"),
    ] {
        assert!(with(first, second, admin).is_ok(), "{first} {second} {admin}");
    }
    // The admin port has a default, which a listener may take by mistake.
    let error = parse(&GOOD.replace("127.0.0.1:0", "127.0.0.1:9192")).unwrap_err();
    assert!(error.starts_with("palisade.toml:2: `admin.listen`: "), "{error}");
}

/// None is forgotten: what the default file has is tried with a number that nobody could mean.
#[test]
fn every_number_has_a_range() {
    let mut table = "";
    let mut numbers = 0;
    for line in DEFAULT.lines() {
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_end_matches(']');
        }
        // Those of tables that are not there unless written have tests of their own.
        let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) else { continue };
        let value = value.split('#').next().unwrap_or_default().trim();
        let Ok(default) = value.parse::<u64>() else { continue };
        numbers += 1;
        // Where the default is 0, that switches something off.
        for wrong in [0, u64::from(u32::MAX)].into_iter().filter(|wrong| *wrong != default) {
            let text = format!("{GOOD}[{table}]\n{key} = {wrong}\n");
            let error = parse(&text).unwrap_err();
            let expected = format!("palisade.toml:6: `{key}` has to be from ");
            assert!(error.starts_with(&expected), "{error}");
        }
    }
    assert_eq!(numbers, 42);
}

#[test]
fn there_is_one_place_for_records_and_its_name_can_be_signed() {
    let with = |more: &str| parse(&format!("{GOOD}{more}"));
    for good in [
        "[audit]\ndirectory = \"log\"\n",
        "[audit]\ndirectory = \"log\"\npod = \"a-1\"\ncluster = \"eu\"\n[record]\npermits = \"compact\"\n",
        "[record]\ndangerous_none = true\n",
        "[record]\npath = \"-\"\n",
    ] {
        assert!(with(good).is_ok(), "{good}: {:?}", with(good));
    }
    for (wrong, place) in [
        ("[audit]\ndirectory = \"log\"\n[record]\npath = \"r\"\n", "8: `record.path`: records go to the log"),
        ("[audit]\ndurability = \"async\"\n", "5: `[audit]` without `directory`"),
        ("[record]\ndangerous_none = true\npath = \"r\"\n", "6: `record.dangerous_none`: there is a place"),
        ("[audit]\ndirectory = \"log\"\ndangerous_none = true\n", "7: unknown field `dangerous_none`"),
        ("[audit]\ndirectory = \"log\"\npod = \"a b\"\n", "7: `audit.pod`: `a b` cannot be"),
        ("[audit]\ndirectory = \"\"\n", "6: `audit.directory`: invalid value: string \"\", expected a path"),
        ("[audit]\ndirectory = \"log\"\ncluster = \"a+b\"\n", "7: `audit.cluster`: `a+b` cannot be"),
        ("[audit]\ndirectory = \"log\"\nnamespace = \"a/b\"\n", "7: `audit.namespace`: `a/b` cannot be"),
        ("[audit]\ndirectory = \"log\"\nnamespace = \"\"\n", "7: `audit.namespace`: `` cannot be"),
        ("[audit]\ndirectory = \"log\"\nanchor_file = \"log/a\"\n", "7: `audit.anchor_file`: it is in the log's own"),
        ("[audit]\ndirectory = \"log\"\ndurability = \"never\"\n", "7: `audit.durability`: unknown variant"),
    ] {
        let error = with(wrong).unwrap_err();
        assert!(error.starts_with(&format!("palisade.toml:{place}")), "{wrong}: {error}");
    }
}

#[test]
fn spans_go_to_a_url_without_a_password() {
    let with = |endpoint: &str| parse(&format!("{GOOD}[telemetry]\notlp_endpoint = \"{endpoint}\"\n"));
    for good in ["", "http://127.0.0.1:4317", "https://otel.example", "http://[::1]:4317/"] {
        assert!(with(good).is_ok(), "{good}");
    }
    for wrong in
        ["not a url", "otel:4317", "/path", "grpc://otel:4317", "http://", "http://u:secret@otel:4317", "http://u@otel"]
    {
        let error = with(wrong).unwrap_err();
        assert!(error.starts_with("palisade.toml:6: `otlp_endpoint` has to be"), "{wrong}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn callers_asserted_from_beyond_loopback_are_noticed() {
    let listener = |tcp: &str, identity| Listener { tcp: Some(tcp.parse().unwrap()), identity, ..Listener::default() };
    for (address, outside) in [
        ("127.0.0.1:1", false),
        ("127.1.2.3:1", false),
        ("[::1]:1", false),
        ("[::ffff:127.0.0.1]:1", false),
        ("0.0.0.0:1", true),
        ("[::]:1", true),
        ("10.0.0.1:1", true),
    ] {
        let found = listener(address, IdentitySource::Xfcc).takes_callers_from_the_network();
        assert_eq!(found.is_some(), outside, "{address}");
        assert_eq!(listener(address, IdentitySource::SourcePrincipal).takes_callers_from_the_network(), None);
    }
}

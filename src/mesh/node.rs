//! YAML and JSON as one tree that knows its lines, read as strictly as what the mesh reads: a configuration that two readers could
//! understand differently is not understood.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Largest file, in bytes: a dump of a large mesh has some 100 MB.
pub const MAX_BYTES: usize = 256 * 1024 * 1024;
/// Deepest nesting; `serde_json` itself goes no deeper than this.
const MAX_DEPTH: usize = 127;
/// Most values of one file that anchors and aliases repeat.
const MAX_REPEATED: usize = 100_000;
/// Most bytes of them.
const MAX_REPEATED_BYTES: usize = 16 * 1024 * 1024;
/// What ends a line, and with it a comment, for some of YAML's readers alone.
const BREAKS: &[char] = &['\r', '\u{85}', '\u{2028}', '\u{2029}'];
/// Tags that make nothing else of a value than what it is without them; `!!binary` is decoded, say.
const TAGS: &[&str] = &["str", "int", "float", "bool", "seq", "map"];
/// Whose names anybody makes up: two of them are two, however alike.
const FREE: &[&str] = &["labels", "annotations", "data", "stringData"];

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its line, from 1; 0 in JSON, which is for machines.
    pub line: usize,
    /// What it is.
    pub value: Value,
}

/// What a value is. Numbers and booleans are texts as they were written: protobuf's JSON takes either form of a number.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing, which is as good as absent.
    Null,
    /// Text, a number or a boolean.
    Scalar(String),
    /// Values in order.
    List(Vec<Node>),
    /// Values by name, in order; no name twice.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// What stands where nothing does.
    pub const NULL: &Self = &Self { line: 0, value: Value::Null };

    /// The value of `name`, which may be written, and asked for, `like_this` or `likeThis`; nothing where there is none.
    #[must_use]
    pub fn get(&self, name: &str) -> &Self {
        self.members().iter().find(|(written, _)| is_name(written, name)).map_or(Self::NULL, |(_, value)| value)
    }

    /// The value at the end of names with dots between them.
    #[must_use]
    pub fn at(&self, path: &str) -> &Self {
        path.split('.').fold(self, |node, name| node.get(name))
    }

    /// The value of exactly `name`: an annotation, say.
    #[must_use]
    pub fn exact(&self, name: &str) -> &Self {
        self.members().iter().find(|(written, _)| written == name).map_or(Self::NULL, |(_, value)| value)
    }

    /// Names and values; none of what is no map.
    #[must_use]
    pub fn members(&self) -> &[(String, Self)] {
        if let Value::Map(members) = &self.value { members } else { &[] }
    }

    /// The values of a list; none of what is no list.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        if let Value::List(items) = &self.value { items } else { &[] }
    }

    /// The text of a scalar; empty for anything else.
    #[must_use]
    pub fn text(&self) -> &str {
        if let Value::Scalar(text) = &self.value { text } else { "" }
    }

    /// Whether there is something.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.value != Value::Null
    }

    /// Whether it says yes, in any way that one of the mesh's readers understands.
    #[must_use]
    pub fn is_true(&self) -> bool {
        matches!(self.text().to_ascii_lowercase().as_str(), "true" | "yes" | "on" | "y" | "1")
    }

    /// Whether it is there and says anything but yes.
    #[must_use]
    pub fn is_false(&self) -> bool {
        self.is_there() && !self.is_true()
    }

    /// The number it is.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        self.text().parse().ok()
    }

    /// With what `other` says laid over it, name by name; lists are taken whole.
    #[must_use]
    pub fn overlaid(mut self, other: &Self) -> Self {
        match (&mut self.value, &other.value) {
            (_, Value::Null) => self,
            (Value::Map(members), Value::Map(others)) => {
                for (name, value) in others {
                    match members.iter_mut().find(|(known, _)| is_name(known, name)) {
                        Some((_, known)) => *known = known.clone().overlaid(value),
                        None => members.push((name.clone(), value.clone())),
                    }
                }
                self
            }
            _ => other.clone(),
        }
    }

    /// Whether it is that value of an enumeration, which Envoy takes in any case, and by its number.
    #[must_use]
    pub fn is_enum(&self, name: &str, number: u64) -> bool {
        self.text().eq_ignore_ascii_case(name) || self.number() == Some(number)
    }

    /// Moves it, and all below, down by so many lines.
    pub fn shift(&mut self, lines: usize) {
        self.line += lines;
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.shift(lines)),
            Value::Map(members) => members.iter_mut().for_each(|(_, value)| value.shift(lines)),
            Value::Null | Value::Scalar(_) => {}
        }
    }

    /// Every value below, this one first.
    pub fn each<'n>(&'n self, look: &mut impl FnMut(&'n Self)) {
        look(self);
        self.items().iter().for_each(|item| item.each(look));
        self.members().iter().for_each(|(_, value)| value.each(look));
    }
}

/// Whether `written` is `name`: as it is, or with one of them as protobuf's JSON has it.
fn is_name(written: &str, name: &str) -> bool {
    written == name || (written.contains('_') != name.contains('_') && camel(written).eq(camel(name)))
}

fn camel(name: &str) -> impl Iterator<Item = char> {
    let mut letters = name.chars();
    std::iter::from_fn(move || match letters.next() {
        Some('_') => letters.next().map(|letter| letter.to_ascii_uppercase()),
        other => other,
    })
}

/// Reads a text: JSON if it begins with a brace, else the documents of a YAML stream.
///
/// # Errors
/// What is wrong, and on which line.
pub fn read(text: &str) -> Result<Vec<Node>, String> {
    let nodes = parse(text)?;
    nodes.iter().try_for_each(|node| unique(node, false))?;
    Ok(nodes)
}

fn parse(text: &str) -> Result<Vec<Node>, String> {
    // As JSON where it is: YAML's reader would take much longer for a large dump.
    if text.trim_start().starts_with('{') {
        match serde_json::from_str::<Node>(text) {
            Ok(node) => return Ok(vec![node]),
            // A flow mapping of YAML begins likewise.
            Err(error) => return yaml(text).map_err(|_| format!("is no JSON: {error}")),
        }
    }
    yaml(text)
}

/// Refuses names that are there twice, in one spelling or in two: which of the values counts depends on the reader.
fn unique(node: &Node, is_free: bool) -> Result<(), String> {
    let is_free =
        is_free && node.members().iter().all(|(_, value)| matches!(value.value, Value::Scalar(_) | Value::Null));
    let mut known = HashSet::new();
    for (name, value) in node.members() {
        let normal = if is_free || !name.contains('_') { Cow::Borrowed(name.as_str()) } else { camel(name).collect() };
        if !known.insert(normal) {
            let at = if value.line == 0 { String::new() } else { format!("line {}: ", value.line) };
            return Err(format!("{at}`{name}` is there twice, maybe in another spelling"));
        }
        unique(value, FREE.contains(&name.as_str()))?;
    }
    node.items().iter().try_for_each(|item| unique(item, false))
}

/// A collection that is being read.
struct Open {
    node: Node,
    anchor: usize,
    /// The name whose value comes next, in a map.
    name: Option<String>,
}

#[derive(Default)]
struct Stream {
    open: Vec<Open>,
    done: Vec<Node>,
    anchors: HashMap<usize, Node>,
    repeated: Repeated,
}

/// What anchors and aliases have repeated.
#[derive(Default)]
struct Repeated {
    values: usize,
    bytes: usize,
}

impl Repeated {
    /// Another copy of `node`.
    fn copy(&mut self, node: &Node) -> Result<Node, String> {
        node.each(&mut |node| {
            self.values += 1;
            self.bytes += node.text().len() + node.members().iter().map(|(name, _)| name.len()).sum::<usize>();
        });
        if self.values > MAX_REPEATED || self.bytes > MAX_REPEATED_BYTES {
            return Err(format!("aliases repeat more than {MAX_REPEATED} values, or {MAX_REPEATED_BYTES} bytes"));
        }
        Ok(node.clone())
    }
}

fn yaml(text: &str) -> Result<Vec<Node>, String> {
    if let Some(number) = text.lines().position(|line| line.contains(BREAKS)) {
        return Err(format!("line {}: has a line break that is none to every reader", number + 1));
    }
    let mut stream = Stream::default();
    let mut lines = (1..).zip(text.lines());
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| format!("line {}: {}", error.marker().line(), error.info()))?;
        let line = span.start.line();
        if let Event::DocumentStart(is_marked) = event
            && !stream.done.is_empty()
        {
            // Kubernetes' reader takes a file apart at these lines alone, and reads one document of each part.
            let is_alone = lines.find(|(number, _)| *number == line).is_some_and(|(_, text)| text.trim_end() == "---");
            if !is_marked || !is_alone {
                return Err(format!("line {line}: what follows is not read by all: begin it with a line `---`"));
            }
        }
        stream.take(event, line).map_err(|what| format!("line {line}: {what}"))?;
    }
    Ok(stream.done)
}

impl Stream {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), String> {
        if let Event::Scalar(.., Some(tag)) | Event::SequenceStart(_, Some(tag)) | Event::MappingStart(_, Some(tag)) =
            &event
            && !(tag.is_yaml_core_schema() && TAGS.contains(&tag.suffix.as_str()))
        {
            return Err(format!("the tag `{}{}` is not read", tag.handle, tag.suffix));
        }
        match event {
            Event::SequenceStart(anchor, _) => self.open(Value::List(Vec::new()), anchor, line),
            Event::MappingStart(anchor, _) => self.open(Value::Map(Vec::new()), anchor, line),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { node, anchor, .. }) = self.open.pop() else { return Err("ends nothing".into()) };
                self.put(node, anchor)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_plain = style == saphyr_parser::ScalarStyle::Plain && tag.is_none();
                let is_null = is_plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if is_null { Value::Null } else { Value::Scalar(text.into_owned()) };
                self.put(Node { line, value }, anchor)
            }
            Event::Alias(anchor) => {
                let node = self.repeated.copy(self.anchors.get(&anchor).ok_or("an alias of nothing")?)?;
                self.put(Node { line, ..node }, 0)
            }
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn open(&mut self, value: Value, anchor: usize, line: usize) -> Result<(), String> {
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("is nested deeper than {MAX_DEPTH}"));
        }
        self.open.push(Open { node: Node { line, value }, anchor, name: None });
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), String> {
        if anchor != 0 {
            self.anchors.insert(anchor, self.repeated.copy(&node)?);
        }
        let Some(open) = self.open.last_mut() else {
            self.done.push(node);
            return Ok(());
        };
        match (&mut open.node.value, open.name.take()) {
            (Value::List(items), _) => items.push(node),
            (Value::Map(members), Some(name)) => members.push((name, node)),
            (Value::Map(_), None) => {
                let Value::Scalar(name) = node.value else { return Err("a name has to be a text".into()) };
                // What is merged depends on the reader.
                if name == "<<" {
                    return Err("merge keys (`<<`) are not read: write the values themselves".into());
                }
                open.name = Some(name);
            }
            (Value::Null | Value::Scalar(_), _) => return Err("is no collection".into()),
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = deserializer.deserialize_any(Json)?;
        Ok(Self { line: 0, value })
    }
}

struct Json;

impl<'de> Visitor<'de> for Json {
    type Value = Value;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Value::Map(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_one_tree_and_names_have_two_spellings() {
        let yaml = &read("a_b_c: 1\nlist: [x, {y: yes}]\nnothing: ~\ntext: 'null'\n").unwrap()[0];
        let json = &read(r#"{"aBC": 1, "list": ["x", {"y": "yes"}], "nothing": null, "text": "null"}"#).unwrap()[0];
        for node in [yaml, json] {
            assert_eq!(node.get("a_b_c").number(), Some(1));
            assert_eq!(node.get("list").items()[0].text(), "x");
            assert!(node.get("list").items()[1].at("y").is_true());
            assert!(!node.get("nothing").is_there());
            assert_eq!(node.get("text").text(), "null");
            assert!(!node.at("no.such.thing").is_there());
        }
        assert_eq!(yaml.get("text").line, 4);
        assert!(
            !is_name("aBCd", "a_b_c") && !is_name("aB", "a_b_c") && !is_name("abc", "a_b_c") && is_name("aBC", "a_b_c")
        );
        // However it is asked for.
        assert!(is_name("a_b_c", "aBC") && !is_name("a_b", "aBC") && !is_name("abc", "aBC"));
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for (text, why) in [
            ("a: 1\na: 2\n", "line 2: `a` is there twice"),
            (r#"{"a": {"b": 1, "b": 2}}"#, "`b` is there twice"),
            ("a:\n  fail_open: false\n  failOpen: true\n", "line 3: `failOpen` is there twice"),
            (r#"{"a_b": 1, "aB": 2}"#, "`aB` is there twice"),
            ("labels: {a_b: {x: 1}, aB: {}}", "`aB` is there twice"),
            ("labels: {a: 1, a: 2}", "`a` is there twice"),
            ("a: &x 1\nb: 1\nb: *x\n", "line 3: `b` is there twice"),
            ("a: !!binary ZmFsc2U=\n", "line 1: the tag"),
            ("a: !mine false\n", "line 1: the tag"),
            ("a: !!set {b}\n", "line 1: the tag"),
            ("%TAG !! tag:example.org,2000:\n---\na: !!str x\n", "line 3: the tag"),
            ("a: 1\n...\nb: 2\n", "line 3: what follows"),
            ("a: 1\r\n--- {b: 2}\r\n", "line 2: what follows"),
            ("a: 1\n--- # b\nb: 2\n", "line 2: what follows"),
            ("a: 1 # b\u{2028}b: 2\n", "line 1: has a line break"),
            ("a: 1\n# b\rb: 2\n", "line 2: has a line break"),
            ("base: &b {x: 1}\nother:\n  <<: *b\n", "merge keys"),
            ("[a]: 1\n", "a name has to be a text"),
            ("a: [1\n", "line"),
            ("a: *nobody\n", "line 1"),
            (r#"{"a": 1"#, "is no JSON"),
            (&("[".repeat(200) + &"]".repeat(200)), "nested deeper"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        // What all read alike is read.
        let ended =
            read("--- # one\na: !!str null\n...\n---\nlabels: {a_b: 1, aB: 2}\r\n--- \r\nc: !!bool true\n...\n")
                .unwrap();
        assert_eq!(ended.len(), 3);
        assert!(ended[0].get("a").is_there() && ended[2].get("c").is_true());
        // An alias is what it stands for; a bomb of them has an end.
        let aliased = read("a: &x {b: [1]}\nc: *x\n").unwrap();
        assert_eq!(aliased[0].at("c.b").items()[0].text(), "1");
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let last = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", vec![last; 10].join(", "));
        }
        assert!(read(&bomb).unwrap_err().contains("aliases repeat"));
    }

    #[test]
    fn many_names_take_no_time() {
        let names: Vec<String> = (0..200_000).map(|number| format!("\"k{number}\": 1")).collect();
        let text = format!("{{{}}}", names.join(",\n"));
        assert_eq!(read(&text).unwrap()[0].members().len(), 200_000);
        assert_eq!(read(&format!("a:\n {text}")).unwrap()[0].get("a").members().len(), 200_000);
    }

    #[test]
    fn what_is_repeated_is_bounded_in_bytes_as_well() {
        // Few values, and long ones; few values within many anchors; and names as well as values.
        let long = "x".repeat(1 << 20);
        let wide = format!("a: &a {long}\nb: [{}]\n", vec!["*a"; 90_000].join(", "));
        let nested = (0..100).map(|level| format!("&a{level} [")).collect::<String>() + &long + &"]".repeat(100);
        let names = format!("a: &a {{{long}: 1}}\nb: [{}]\n", vec!["*a"; 40_000].join(", "));
        for text in [wide, nested, names] {
            assert!(read(&text).unwrap_err().contains("bytes"));
        }
        // As many anchors and aliases as there may be are found at once.
        let many = (0..40_000).map(|number| format!("- &a{number} x\n- *a{number}\n")).collect::<String>();
        assert_eq!(read(&many).unwrap()[0].items().len(), 80_000);
    }
}

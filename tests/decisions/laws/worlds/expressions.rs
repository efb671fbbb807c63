//! Conditions by chance, as text. Tame ones mostly validate; wild ones read what is not there, compare what cannot be
//! compared, compute what overflows. Only the principal, the resource and the action are looked into, which is all that
//! strict validation at level 1 leaves (no context that Palisade makes holds entities of its own).

use super::dice::Dice;
use super::model::{Attribute, Model, NAMES, Ty};
use super::world::{TAGS, Uid};

/// Whom a condition is about, as far as the scope says it.
#[derive(Clone, Debug)]
pub struct About {
    pub principal: &'static str,
    pub action: &'static str,
    pub resource: &'static str,
}

pub struct Writer<'w> {
    pub model: &'w Model,
    pub named: &'w [Uid],
    pub about: About,
    /// How often, in percent, something is written that may fail.
    pub wild: usize,
    pub dice: &'w mut Dice,
    /// Whether entities are looked into that are neither principal nor resource: strict validation at level 1 refuses
    /// that, and what the engine would say is not asked.
    pub deep: bool,
    /// What has to be tested before the part that is being written.
    guards: Vec<String>,
}

const TYPES: &[Ty] = &[Ty::Bool, Ty::Long, Ty::Text, Ty::Texts, Ty::Decimal, Ty::Ip, Ty::Moment, Ty::Span, Ty::Card];

impl<'w> Writer<'w> {
    /// A writer about one action, chosen by chance.
    pub fn new(model: &'w Model, named: &'w [Uid], wild: usize, dice: &'w mut Dice) -> Self {
        let leaf = dice.one_of(&model.leaves());
        let (principal, resource) = (dice.one_of(&leaf.principals), dice.one_of(&leaf.resources));
        let about = About { principal, action: leaf.name, resource };
        Self { model, named, about, wild, dice, deep: false, guards: Vec::new() }
    }

    /// A whole condition: operands of `&&`, of which the first can be such that they tell the policy apart.
    pub fn condition(&mut self) -> String {
        let operands = [1, 1, 2, 2, 3, 4][self.dice.below(6)];
        let mut condition = String::new();
        for at in 0..operands {
            let operand = match self.dice.below(10) {
                0..=2 => self.key(),
                3 | 4 => self.nearly_key(),
                5 => self.has(),
                _ => self.boolean(2),
            };
            condition = match (at, self.dice.below(4)) {
                (0, _) => operand,
                // `&&` is grouped to the left unless something else is written.
                (_, 0) => format!("{operand} && ({condition})"),
                (_, 1) => format!("({condition}) && {operand}"),
                _ => format!("{condition} && {operand}"),
            };
        }
        condition
    }

    /// What tells a policy apart, or nearly.
    fn key(&mut self) -> String {
        let side = if self.dice.percent(50) { "principal" } else { "resource" };
        let own = self.type_of(side);
        let (uid, above) = (self.uid(Some(own)), self.uid_above(own));
        match self.dice.below(14) {
            0 | 1 => format!("{side} == {uid}"),
            2..=6 => format!("{side} in {above}"),
            7 => format!("{uid} == {side}"),
            8 => format!("{side} is {} in {above}", uid.ty),
            9 => format!("{side} is {own}"),
            10 => format!("{side} in [{above}, {uid}]"),
            11 => format!("action == {}", self.action()),
            12 => format!("action in {}", self.action()),
            _ => format!("action in [{}, {}]", self.action(), self.action()),
        }
    }

    /// What looks alike, but can fail, or can hold for others.
    fn nearly_key(&mut self) -> String {
        let side = if self.dice.percent(50) { "principal" } else { "resource" };
        let own = self.type_of(side);
        let (uid, above) = (self.uid(Some(own)), self.uid_above(own));
        let of = self.dice.one_of(&["principal", "resource", "context"]);
        let attribute = self.dice.one_of(&["owner", "owner", "peers", "level"]);
        match self.dice.below(12) {
            7 | 8 => self.by_action(),
            9 | 10 if self.dice.percent(self.wild.max(40)) => {
                let never = [format!("context in {uid}"), format!("context is {own}"), format!("{side} in context")];
                self.dice.one_of(&never)
            }
            0 | 1 => format!("{of}.{attribute} == {uid}"),
            2 => format!("{side} in {of}.{attribute}"),
            3 => format!("{side} != {uid}"),
            4 => format!("!({side} in {above})"),
            5 => format!("({} || {})", self.key(), self.key()),
            6 => format!("({side} == {uid} || {of}.{attribute} == {uid})"),
            _ => format!("(if {side} in {above} then {} else {of} has {attribute})", self.key()),
        }
    }

    /// What is only looked at for another action, where it may make no sense.
    fn by_action(&mut self) -> String {
        let wild = self.wild;
        self.wild = if self.dice.percent(50) { 80 } else { wild };
        let other = self.boolean(1);
        self.wild = wild;
        let action = self.action();
        match self.dice.below(3) {
            0 => format!("(action == {action} || {other})"),
            1 => format!("(if action in {action} then true else {other})"),
            _ => format!("!(action != {action} && {other})"),
        }
    }

    fn has(&mut self) -> String {
        let of = self.dice.one_of(&["principal", "resource", "context", "context", "action"]);
        let name = self.dice.one_of(NAMES);
        match self.dice.below(9) {
            0 => format!("context has {name}.x"),
            8 => "context has input.x".into(),
            1 | 2 if self.deep => format!("{of} has owner.{name}"),
            1 => format!("{of} has {name:?}"),
            _ => format!("{of} has {name}"),
        }
    }

    /// Something that is true or false, in brackets where that matters.
    pub fn boolean(&mut self, depth: usize) -> String {
        let outer = std::mem::take(&mut self.guards);
        let tested = match if depth == 0 { 9 } else { self.dice.below(16) } {
            0 => format!("({} || {})", self.boolean(depth - 1), self.boolean(depth - 1)),
            1 => format!("({} && {})", self.boolean(depth - 1), self.boolean(depth - 1)),
            2 => format!("!({})", self.boolean(depth - 1)),
            3 => {
                let (test, then) = (self.boolean(depth - 1), self.boolean(depth - 1));
                format!("(if {test} then {then} else {})", self.boolean(depth - 1))
            }
            4 => format!("({} == {})", self.boolean(depth - 1), self.boolean(depth - 1)),
            5 | 6 => format!("({})", self.key()),
            7 => format!("({})", self.has()),
            _ => self.test(),
        };
        let guards = std::mem::replace(&mut self.guards, outer);
        let guarded = |text, guard: &String| format!("({guard} && {text})");
        guards.iter().rev().fold(tested, guarded)
    }

    /// One test of one value.
    fn test(&mut self) -> String {
        if self.deep && self.dice.percent(12) {
            return self.deep_test();
        }
        match self.dice.below(22) {
            0..=3 => {
                let operator = self.dice.one_of(&["<", "<=", ">", ">=", "==", "!="]);
                format!("({} {operator} {})", self.long(2), self.long(1))
            }
            4 | 5 => format!("({} == {})", self.text(), self.text()),
            6 | 7 => {
                let pattern = self.dice.one_of(&["*", "a*", "*secret*", "x\\*y", "*a*e*", ""]);
                format!("({} like \"{pattern}\")", self.text())
            }
            8 => format!("{}.contains({})", self.texts(), self.text()),
            9 => {
                let method = self.dice.one_of(&["containsAll", "containsAny"]);
                format!("{}.{method}({})", self.texts(), self.texts())
            }
            10 => format!("{}.isEmpty()", self.texts()),
            11 => {
                let method = self.dice.one_of(&["lessThan", "greaterThan", "lessThanOrEqual"]);
                format!("{}.{method}({})", self.decimal(), self.decimal())
            }
            12 => match self.dice.below(3) {
                0 => format!("{}.isIpv4()", self.ip()),
                1 => format!("{}.isLoopback()", self.ip()),
                _ => format!("{}.isInRange({})", self.ip(), self.ip()),
            },
            13 => format!("({} < {})", self.moment(), self.moment()),
            14 => format!("({} >= {})", self.span(), self.span()),
            15 | 16 => self.tag(),
            17 => self.entity_test(),
            18 => self.whole_record(),
            19 if self.dice.percent(self.wild) => format!("({} == {})", self.anything(), self.anything()),
            20 if self.dice.percent(self.wild) => format!("({} < {})", self.anything(), self.anything()),
            21 if self.dice.percent(self.wild) => format!("({} * 9223372036854775807 > 0)", self.long(1)),
            _ => self.read(Ty::Bool).unwrap_or_else(|| "true".to_owned()),
        }
    }

    /// A look into an entity of an entity, into one of the context, or into one that is written out.
    fn deep_test(&mut self) -> String {
        let of = self.dice.one_of(&self.model.types).name;
        let entity = match self.dice.below(6) {
            0 => self.uid(Some(of)).to_string(),
            1 => "(if principal is Agent then principal else principal)".into(),
            _ => self.read(Ty::Entity(of)).unwrap_or_else(|| self.uid(Some(of)).to_string()),
        };
        let attributes = self.model.entity_type(of).map_or(&[][..], |ty| &ty.attributes[..]);
        match self.dice.below(4) {
            0 => format!("({entity} in {})", self.uid_above(of)),
            1 => format!("{entity}.hasTag(\"team\")"),
            _ if attributes.is_empty() => format!("({entity} has level)"),
            _ => {
                let attribute = self.dice.one_of(attributes);
                let name = attribute.name;
                match attribute.ty {
                    Ty::Long => format!("({entity} has {name} && {entity}.{name} < 3)"),
                    Ty::Bool => format!("({entity} has {name} && {entity}.{name})"),
                    _ => format!("({entity} has {name} && {entity}.{name} == {entity}.{name})"),
                }
            }
        }
    }

    fn entity_test(&mut self) -> String {
        let side = if self.dice.percent(50) { "principal" } else { "resource" };
        let of = self.type_of(side);
        match self.dice.below(6) {
            0 => "(principal == resource)".into(),
            1 => "(resource in principal)".into(),
            2 => match self.read(Ty::Entities(of)) {
                Some(all) => format!("{all}.contains({side})"),
                None => format!("({side} in [])"),
            },
            3 => match self.read(Ty::Entities(of)) {
                Some(all) => format!("({side} in {all})"),
                None => format!("({side} in [principal, resource])"),
            },
            4 => match self.read(Ty::Entity(of)) {
                Some(one) => format!("({one} == {side})"),
                None => format!("({side} != {})", self.uid(Some(of))),
            },
            _ => match self.read(Ty::Entity(of)) {
                Some(one) => format!("({side} in {one})"),
                None => format!("({side} in {})", self.uid_above(of)),
            },
        }
    }

    fn tag(&mut self) -> String {
        let side = if self.dice.percent(50) { "principal" } else { "resource" };
        let tag = self.dice.one_of(TAGS);
        let ty = self.model.entity_type(self.type_of(side)).and_then(|ty| ty.tags);
        let read = format!("{side}.getTag(\"{tag}\")");
        let test = match ty {
            Some(Ty::Text) => format!("{read} == {}", self.text()),
            Some(Ty::Long) => format!("{read} < 3"),
            Some(_) => format!("{read}.contains(\"a\")"),
            None if !self.dice.percent(self.wild) => return "(1 < 2)".into(),
            None => format!("{read} like \"a*\""),
        };
        if self.dice.percent(self.wild) { format!("({test})") } else { format!("({side}.hasTag(\"{tag}\") && {test})") }
    }

    fn whole_record(&mut self) -> String {
        match self.dice.below(4) {
            0 if self.dice.percent(self.wild) => "(context == {})".into(),
            1 if self.dice.percent(self.wild) => format!("(context == {{level: {}}})", self.long(0)),
            2 => match self.read(Ty::Card) {
                Some(card) => format!("({card} has y && {card}.y like \"a*\")"),
                None => "(context has level)".into(),
            },
            _ => match self.read(Ty::Card) {
                Some(card) => format!("({card} == {{x: {}}})", self.long(0)),
                None => "({x: 1}.x == 1)".into(),
            },
        }
    }

    fn anything(&mut self) -> String {
        let ty = self.dice.one_of(TYPES);
        match ty {
            Ty::Long => self.long(1),
            Ty::Text => self.text(),
            Ty::Texts => self.texts(),
            Ty::Decimal => self.decimal(),
            Ty::Ip => self.ip(),
            Ty::Moment => self.moment(),
            Ty::Span => self.span(),
            Ty::Card => "{x: 1}".into(),
            _ => self.uid(None).to_string(),
        }
    }

    fn long(&mut self, depth: usize) -> String {
        match if depth == 0 { 0 } else { self.dice.below(12) } {
            0..=2 => {
                if self.dice.percent(self.wild) {
                    self.dice.one_of(&["9223372036854775807", "-9223372036854775808"]).into()
                } else {
                    self.dice.one_of(&["0", "1", "-1", "5", "100"]).into()
                }
            }
            3 => format!("({} + {})", self.long(depth - 1), self.long(depth - 1)),
            4 => format!("({} - {})", self.long(depth - 1), self.long(depth - 1)),
            5 => format!("({} * {})", self.long(depth - 1), self.long(depth - 1)),
            6 => format!("(-{})", self.long(depth - 1)),
            7 => format!("{}.toDays()", self.span()),
            8 => format!("(if {} then {} else 0)", self.key(), self.long(depth - 1)),
            _ => self.read(Ty::Long).unwrap_or_else(|| "2".into()),
        }
    }

    fn text(&mut self) -> String {
        let literals = ["\"\"", "\"a\"", "\"secret\"", "\"x*y\"", "\"été\"", "\"two\u{a0}words\"", "\"s\u{435}cret\""];
        // The last two draw warnings.
        let sane = if self.dice.percent(self.wild / 4) { literals.len() } else { 5 };
        let literal = self.dice.one_of(&literals[..sane]).to_owned();
        if self.dice.percent(60) { self.read(Ty::Text).unwrap_or(literal) } else { literal }
    }

    fn texts(&mut self) -> String {
        let literal = (self.dice.one_of(&["[\"a\"]", "[\"a\", \"secret\"]", "[\"\"]"])).to_owned();
        if self.dice.percent(60) { self.read(Ty::Texts).unwrap_or(literal) } else { literal }
    }

    fn decimal(&mut self) -> String {
        self.extension(Ty::Decimal, "decimal", &["0.0", "1.5"], &["1.00000000001", "1", "", "922337203685477.5808"])
    }

    fn ip(&mut self) -> String {
        self.extension(Ty::Ip, "ip", &["10.0.0.0/8", "::1"], &["010.0.0.1", "10.0.0.0/33", "no address"])
    }

    fn moment(&mut self) -> String {
        let moment =
            self.extension(Ty::Moment, "datetime", &["2026-03-04", "1970-01-01T00:00:00Z"], &["2026-02-30", "soon"]);
        if self.dice.percent(20) { format!("{moment}.offset({})", self.span()) } else { moment }
    }

    fn span(&mut self) -> String {
        self.extension(Ty::Span, "duration", &["1h", "-90d"], &["1 h", "106751991168d"])
    }

    /// A value of an extension: read, made of good text, or of text that it refuses.
    fn extension(&mut self, ty: Ty, constructor: &str, good: &[&str], bad: &[&str]) -> String {
        let literal = format!("{constructor}(\"{}\")", self.dice.one_of(good));
        match self.dice.below(10) {
            0..=4 => self.read(ty).unwrap_or(literal),
            5 | 6 if self.dice.percent(self.wild) => format!("{constructor}(\"{}\")", self.dice.one_of(bad)),
            7 if self.dice.percent(self.wild) => format!("{constructor}({})", self.text()),
            _ => literal,
        }
    }

    /// An attribute with a value of this type, tested for where it is optional; `None` if there is none. A wild one may
    /// be of another type, or not be there.
    fn read(&mut self, ty: Ty) -> Option<String> {
        if self.dice.percent(self.wild / 2) {
            let of = self.dice.one_of(&["principal", "resource", "context"]);
            let name = if self.dice.percent(20) { "input" } else { self.dice.one_of(NAMES) };
            return Some(format!("{of}.{name}"));
        }
        let model = self.model;
        let of_type = |name: &str| model.entity_type(name).map_or(&[][..], |ty| &ty.attributes[..]);
        let context = model.actions.iter().find(|action| action.name == self.about.action);
        let sides: [(&str, &[Attribute]); 3] = [
            ("principal", of_type(self.about.principal)),
            ("resource", of_type(self.about.resource)),
            ("context", context.map_or(&[], |action| &action.context)),
        ];
        let all = sides.iter().flat_map(|(side, attributes)| attributes.iter().map(move |it| (*side, it)));
        let fitting: Vec<(&str, &Attribute)> = all.filter(|(_, attribute)| attribute.ty == ty).collect();
        if fitting.is_empty() {
            return None;
        }
        let (side, attribute) = self.dice.one_of(&fitting);
        if !attribute.required && !self.dice.percent(self.wild) {
            self.guards.push(format!("{side} has {}", attribute.name));
        }
        // Now and then written so that one has to look twice.
        Some(match self.dice.below(20) {
            0 => format!("{side}[\"{}\"]", attribute.name),
            1 => format!("{{it: {side}}}.it.{}", attribute.name),
            2 => format!("(if context has on then {side} else {side}).{}", attribute.name),
            _ => format!("{side}.{}", attribute.name),
        })
    }

    fn type_of(&self, side: &str) -> &'static str {
        if side == "principal" { self.about.principal } else { self.about.resource }
    }

    fn action(&mut self) -> String {
        let name = if self.dice.percent(60) { self.about.action } else { self.dice.one_of(&self.model.actions).name };
        format!("Action::{name:?}")
    }

    /// Somebody of this type, or of any.
    pub fn uid(&mut self, ty: Option<&str>) -> Uid {
        let ty = ty.filter(|_| !self.dice.percent(self.wild / 4));
        if self.dice.percent(self.wild / 8) {
            return Uid { ty: "Ghost", id: "of no type that is declared".to_owned() };
        }
        let fitting: Vec<&Uid> = self.named.iter().filter(|uid| ty.is_none_or(|ty| uid.ty == ty)).collect();
        self.dice.one_of(&fitting).clone()
    }

    /// Somebody or something that one of this type can be in.
    pub fn uid_above(&mut self, of: &str) -> Uid {
        let within = self.model.entity_type(of).map_or(&[][..], |ty| &ty.within[..]);
        let above = if within.is_empty() { None } else { Some(self.dice.one_of(within)) };
        self.uid(above.or(Some(of)))
    }
}

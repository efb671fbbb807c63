//! What of a query a policy can read, found in its condition at load: what nobody reads is not made.

use super::cedar::{BinaryOp, Expr, ExprKind, Var};
use super::context::Attribute;

/// What of a query is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Attributes of the context, a bit each.
    attributes: u32,
    /// A bit per member of `context.input`, by a hash of its name: two members that share one are both made, which is but
    /// slower.
    input: u64,
    /// A bit for each of [`Party`] of which more is read than its uid.
    parties: u8,
}

/// An entity of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// The principal.
    Principal,
    /// The action.
    Action,
    /// The resource.
    Resource,
    /// `context.user`
    User,
    /// `context.usage`
    Usage,
}

impl Party {
    const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// The entity that is an attribute of the context.
    fn named(attribute: &str) -> Option<Self> {
        match attribute {
            Attribute::USER => Some(Self::User),
            Attribute::USAGE => Some(Self::Usage),
            _ => None,
        }
    }

    /// A bit for each entity of which `expr`, the left side of a dot, of `has` or of `in`, may be the one that is looked into. All,
    /// unless it is plain to see that it is one of them or a record.
    fn looked_into(expr: &Expr) -> u8 {
        match expr.expr_kind() {
            ExprKind::Var(Var::Principal) => Self::Principal.bit(),
            ExprKind::Var(Var::Action) => Self::Action.bit(),
            ExprKind::Var(Var::Resource) => Self::Resource.bit(),
            ExprKind::Var(Var::Context) => 0,
            ExprKind::GetAttr { expr: of, attr } if is_context(of) && Self::named(attr).is_some() => {
                Self::named(attr).map_or(u8::MAX, Self::bit)
            }
            _ if is_record_of_context(expr) => 0,
            _ => u8::MAX,
        }
    }
}

impl Needs {
    /// Everything.
    pub const ALL: Self = Self { attributes: u32::MAX, input: u64::MAX, parties: u8::MAX };

    /// What evaluating `condition` can read. Any use of `context` other than reading or testing one attribute
    /// (`context == {…}`) needs them all, and so it is with `context.input` and its members.
    #[must_use]
    pub fn of(condition: &Expr) -> Self {
        // How often `context` and `context.input` are there without one attribute of them being read.
        let (mut needs, mut contexts, mut inputs) = (Self::default(), 0_isize, 0_isize);
        for expr in condition.subexpressions() {
            contexts += isize::from(is_context(expr));
            inputs += isize::from(is_input(expr));
            let (of, name, below) = match expr.expr_kind() {
                ExprKind::GetAttr { expr, attr } | ExprKind::HasAttr { expr, attr } => (expr, attr.as_str(), None),
                ExprKind::ExtHasAttr { expr, attrs } => (expr, attrs.first().as_str(), attrs.get(1)),
                ExprKind::BinaryApp { op: BinaryOp::In | BinaryOp::GetTag | BinaryOp::HasTag, arg1, .. } => {
                    needs.parties |= Party::looked_into(arg1);
                    continue;
                }
                _ => continue,
            };
            // `principal has a.b` looks into whatever entity `a` is.
            let deeper = below.is_some() && !is_context(of) && !is_record_of_context(of);
            let entity = below.is_some() && is_context(of) && !Attribute::is_plain(name);
            needs.parties |= if deeper || entity { u8::MAX } else { Party::looked_into(of) };
            if is_context(of) {
                contexts -= 1;
                needs.attributes |= Attribute::named(name).map_or(u32::MAX, Attribute::bit);
                // `context has input.a`
                needs.input |= below.filter(|_| name == "input").map_or(0, |name| member_bit(name));
            } else if is_input(of) {
                inputs -= 1;
                needs.input |= member_bit(name);
            }
        }
        match (contexts, inputs) {
            (0, 0) => needs,
            (0, _) => Self { input: u64::MAX, ..needs },
            _ => Self::ALL,
        }
    }

    /// Both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self {
            attributes: self.attributes | other.attributes,
            input: self.input | other.input,
            parties: self.parties | other.parties,
        }
    }

    /// Whether arguments of the call are among them.
    #[must_use]
    pub const fn has_input(self) -> bool {
        self.has(Attribute::Input)
    }

    /// Whether the body of the request is.
    #[must_use]
    pub const fn has_body(self) -> bool {
        self.has(Attribute::Body)
    }

    /// Whether grants are.
    #[must_use]
    pub const fn has_grants(self) -> bool {
        self.has(Attribute::Grants)
    }

    /// Whether what is used of limits is.
    #[must_use]
    pub const fn has_usage(self) -> bool {
        self.has(Attribute::Usage)
    }

    /// Whether something is that tokens say.
    #[must_use]
    pub const fn has_testimony(self) -> bool {
        self.has(Attribute::User)
            || self.has(Attribute::Delegation)
            || self.has(Attribute::Scopes)
            || self.has(Attribute::Session)
    }

    /// Whether nothing else of the context is.
    #[must_use]
    pub const fn is_of_tokens_alone(self) -> bool {
        let said =
            Attribute::User.bit() | Attribute::Delegation.bit() | Attribute::Scopes.bit() | Attribute::Session.bit();
        self.attributes & !said == 0
    }

    /// Whether this argument of the call is.
    #[must_use]
    pub fn has_member(self, name: &str) -> bool {
        self.has_input() && self.input & member_bit(name) != 0
    }

    /// Whether an attribute of the context is.
    #[must_use]
    pub(super) const fn has(self, attribute: Attribute) -> bool {
        self.attributes & attribute.bit() != 0
    }

    /// Whether of an entity more is than its uid: an attribute, a tag, or what it is in.
    #[must_use]
    pub const fn looks_into(self, party: Party) -> bool {
        self.parties & party.bit() != 0
    }
}

fn is_context(expr: &Expr) -> bool {
    matches!(expr.expr_kind(), ExprKind::Var(Var::Context))
}

fn is_input(expr: &Expr) -> bool {
    matches!(expr.expr_kind(), ExprKind::GetAttr { expr, attr } if attr == "input" && is_context(expr))
}

/// Whether it is `context.a`, `context.a.b` and so on, of an attribute that holds no entity at any depth.
fn is_record_of_context(expr: &Expr) -> bool {
    match expr.expr_kind() {
        ExprKind::GetAttr { expr: of, attr } if is_context(of) => Attribute::is_plain(attr),
        ExprKind::GetAttr { expr: of, .. } => is_record_of_context(of),
        _ => false,
    }
}

/// FNV-1a, folded to one of 64 bits.
fn member_bit(name: &str) -> u64 {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    1 << (hash >> 58)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::policy::cedar::parse_policyset;

    fn needs(condition: &str) -> Needs {
        let text = format!("permit(principal, action, resource) when {{ {condition} }};");
        let set = parse_policyset(&text).unwrap();
        let policy = set.policies().next().unwrap();
        Needs::of(policy.non_scope_constraints_arc().unwrap())
    }

    #[test]
    fn an_entity_is_needed_where_something_looks_into_it() {
        let [principal, action, resource, user] =
            [Party::Principal, Party::Action, Party::Resource, Party::User].map(Party::bit);
        for (condition, expected) in [
            ("principal == Agent::\"a\"", 0),
            ("principal is Agent", 0),
            ("principal in Team::\"a\"", principal),
            ("principal is Agent in Team::\"a\"", principal),
            ("[principal].contains(resource)", 0),
            ("principal.name == \"a\"", principal),
            ("principal has name", principal),
            ("principal.hasTag(\"a\") && principal.getTag(\"a\") == \"b\"", principal),
            ("action in [Action::\"a\"]", action),
            ("resource.team == principal.team", principal | resource),
            ("context has user", 0),
            ("context.user == User::\"a\"", 0),
            ("context.user in Team::\"a\"", user),
            ("context.user.hasTag(\"a\")", user),
            ("context has user && context.user has name && context.user.name == \"a\"", user),
            ("context.delegation.depth > 3 && context.input.where.city == \"a\"", 0),
            ("context has input.where.city", 0),
            ("context.input has where.city", 0),
            // Whose entity it is cannot be told by looking.
            ("principal.team.name == \"a\"", u8::MAX),
            ("principal has team.name", u8::MAX),
            ("context has user.name", u8::MAX),
            ("context.user.team.name == \"a\"", u8::MAX),
            ("context.whatever.name == \"a\"", u8::MAX),
            ("Team::\"a\" in Team::\"b\"", u8::MAX),
            ("(if context has user then principal else resource).name == \"a\"", u8::MAX),
            ("{a: principal}.a.name == \"a\"", u8::MAX),
            ("{a: principal}.a == resource", u8::MAX),
            ("context == {a: 1}", u8::MAX),
        ] {
            assert_eq!(needs(condition).parties, expected, "{condition}");
        }
    }

    #[test]
    fn what_is_read_of_the_context_is_needed() {
        let of = |condition: &str| needs(condition);
        let all = |needs: Needs| Attribute::ALL.iter().filter(|(known, _)| needs.has(*known)).count();
        assert_eq!(all(of("principal == Agent::\"a\"")), 0);
        assert!(all(of("context.now > datetime(\"2026-01-01\")")) == 1 && !of("context has now").has_input());
        assert!(of("context has scopes").has_testimony() && !of("context has request").has_testimony());
        let where_to = of("context.input.to == \"a\" && context.input has amount");
        assert!(where_to.has_member("to") && where_to.has_member("amount") && where_to.input.count_ones() == 2);
        assert!(of("context has input.to").has_member("to"));
        assert_eq!(of("context.input == {a: 1}").input, u64::MAX);
        assert_eq!(of("[context].contains({a: 1})"), Needs::ALL);
        assert_eq!(Needs::ALL.union(Needs::default()), Needs::ALL);
    }
}

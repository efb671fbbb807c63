//! What a policy's scope says, in numbers: every entity and type that scopes name gets one at load, and an entity of a
//! query is looked up once, however many policies it is compared with.

use std::sync::{Arc, OnceLock};

use foldhash::HashMap;

use super::cedar::{
    ActionConstraint, Entity, EntityReference, EntityType, EntityUID, Policy, PrincipalOrResourceConstraint, Template,
};

/// The number of an entity that some scope, or an indexed condition, names.
pub type Named = u32;
/// The number of an entity type that some scope names.
type NamedType = u32;

/// The numbers of what policies name.
#[derive(Debug, Default)]
pub struct Names {
    entities: HashMap<EntityUID, Named>,
    types: HashMap<EntityType, NamedType>,
    /// By number: the entity, written out once somebody asks for that.
    texts: Vec<(Arc<EntityUID>, OnceLock<Box<str>>)>,
}

impl Names {
    /// The number of an entity, a new one if it has none yet.
    pub fn number(&mut self, uid: &Arc<EntityUID>) -> Named {
        if let Some(named) = self.entities.get(&**uid) {
            return *named;
        }
        let next = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        self.texts.push((uid.clone(), OnceLock::new()));
        self.entities.insert((**uid).clone(), next);
        next
    }

    fn number_type(&mut self, ty: &EntityType) -> NamedType {
        let next = u32::try_from(self.types.len()).unwrap_or(u32::MAX);
        *self.types.entry(ty.clone()).or_insert(next)
    }

    /// The entity with a number, as Cedar writes it. Records repeat it for every call, so it is kept.
    #[must_use]
    pub fn text(&self, named: Named) -> Option<&str> {
        let (uid, text) = self.texts.get(named as usize)?;
        Some(text.get_or_init(|| uid.to_string().into()))
    }

    /// An entity as scopes see it.
    #[must_use]
    pub fn known(&self, entity: Arc<Entity>) -> Known {
        let itself = self.entities.get(entity.uid()).copied();
        let above = entity.ancestors().filter_map(|uid| self.entities.get(uid).copied());
        let mut within: Vec<Named> = itself.into_iter().chain(above).collect();
        within.sort_unstable();
        let ty = self.types.get(entity.uid().entity_type()).copied();
        Known { itself, ty, within: within.into_boxed_slice(), entity }
    }
}

/// An entity of a query with all its ancestors, and those of them that policies name.
#[derive(Clone, Debug)]
pub struct Known {
    entity: Arc<Entity>,
    itself: Option<Named>,
    ty: Option<NamedType>,
    /// Itself and its ancestors, in order.
    within: Box<[Named]>,
}

impl Known {
    /// The entity.
    #[must_use]
    pub const fn entity(&self) -> &Arc<Entity> {
        &self.entity
    }

    /// Its uid.
    #[must_use]
    pub fn uid(&self) -> &EntityUID {
        self.entity.uid()
    }

    /// Its own number, if policies name it.
    #[must_use]
    pub const fn itself(&self) -> Option<Named> {
        self.itself
    }

    /// Of itself and its ancestors those that policies name.
    #[must_use]
    pub const fn within(&self) -> &[Named] {
        &self.within
    }

    fn is_in(&self, named: Named) -> bool {
        self.within.binary_search(&named).is_ok()
    }
}

/// What a scope says of the principal or of the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    ty: Option<NamedType>,
    entity: Option<Place>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Is(Named),
    In(Named),
}

impl Scope {
    /// `None` for a template slot, which a linked policy no longer has.
    pub fn of(constraint: &PrincipalOrResourceConstraint, names: &mut Names) -> Option<Self> {
        use PrincipalOrResourceConstraint as C;
        let mut number = |reference: &EntityReference| match reference {
            EntityReference::EUID(uid) => Some(names.number(uid)),
            EntityReference::Slot(_) => None,
        };
        let entity = match constraint {
            C::Any | C::Is(_) => None,
            C::Eq(reference) => Some(Place::Is(number(reference)?)),
            C::In(reference) | C::IsIn(_, reference) => Some(Place::In(number(reference)?)),
        };
        let ty = match constraint {
            C::Is(ty) | C::IsIn(ty, _) => Some(names.number_type(ty)),
            C::Any | C::Eq(_) | C::In(_) => None,
        };
        Some(Self { ty, entity })
    }

    /// The entity that it names.
    #[must_use]
    pub const fn named(&self) -> Option<Named> {
        match self.entity {
            Some(Place::Is(named) | Place::In(named)) => Some(named),
            None => None,
        }
    }

    /// How it compares with the entity that it names: `==` or `in`.
    #[must_use]
    pub const fn operator(&self) -> &'static str {
        match self.entity {
            Some(Place::Is(_)) => "==",
            Some(Place::In(_)) | None => "in",
        }
    }

    /// Whether it holds for an entity.
    #[must_use]
    pub fn matches(&self, known: &Known) -> bool {
        self.ty.is_none_or(|ty| known.ty == Some(ty))
            && match self.entity {
                None => true,
                Some(Place::Is(named)) => known.itself == Some(named),
                Some(Place::In(named)) => known.is_in(named),
            }
    }
}

/// What a scope says of the action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionScope {
    /// Nothing.
    Any,
    /// It has to be this one.
    Is(Named),
    /// It has to be one of these, or in one of them.
    In(Box<[Named]>),
}

impl ActionScope {
    /// The scope of a policy.
    pub fn of(policy: &Policy, names: &mut Names) -> Self {
        Self::of_constraint(policy.action_constraint(), names)
    }

    /// The scope of a template.
    pub fn of_template(template: &Template, names: &mut Names) -> Self {
        Self::of_constraint(template.action_constraint(), names)
    }

    fn of_constraint(constraint: &ActionConstraint, names: &mut Names) -> Self {
        match constraint {
            ActionConstraint::Any => Self::Any,
            ActionConstraint::Eq(action) => Self::Is(names.number(action)),
            ActionConstraint::In(actions) => {
                let mut named: Vec<Named> = actions.iter().map(|action| names.number(action)).collect();
                named.sort_unstable();
                named.dedup();
                Self::In(named.into_boxed_slice())
            }
        }
    }

    /// Whether it holds for an action.
    #[must_use]
    pub fn matches(&self, action: &Known) -> bool {
        match self {
            Self::Any => true,
            Self::Is(named) => action.itself == Some(*named),
            Self::In(named) => named.iter().any(|named| action.is_in(*named)),
        }
    }
}

//! The user that a token proves, as an entity.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::cedar::{Entity, EntityUID, PartialValue, Value, uid};
use super::store::Store;
use crate::authz::token::holder::HeldToken;
use crate::authz::token::{Authority, Rules};

impl Store {
    /// The user of a token: in the groups that the token names, in those of the bundle's entry for it, and in all that those
    /// are in; its tags are the token's claims. `None` for the token of a workload, or of an issuer that is gone.
    #[must_use]
    pub fn user(&self, held: &HeldToken, rules: &Rules) -> Option<Arc<Entity>> {
        let (claims, Authority::Issuer(at)) = (&held.token.claims, &held.token.authority) else { return None };
        let issuer = rules.issuers.get(*at)?;
        let me = uid(&self.types().user, &issuer.own(&claims.subject));
        let mut ancestors: BTreeSet<EntityUID> = BTreeSet::new();
        if let Some(listed) = self.get(&me) {
            ancestors.extend(listed.ancestors().cloned());
        }
        for group in &claims.groups {
            let group = uid(&self.types().user_group, &issuer.own(group));
            if let Some(known) = self.get(&group) {
                ancestors.extend(known.ancestors().cloned());
            }
            ancestors.insert(group);
        }
        let attributes = [("issuer", issuer.issuer.as_str()), ("subject", &claims.subject)];
        let texts = |texts: &[String]| Value::set(texts.iter().map(|text| Value::from(text.as_str())), None);
        let tags =
            claims.others.iter().map(|(name, values)| (name.as_str().into(), PartialValue::Value(texts(values))));
        Some(Arc::new(Entity::new_with_attr_partial_value(
            me,
            attributes.into_iter().map(|(name, text)| (name.into(), PartialValue::Value(Value::from(text)))),
            std::iter::empty().collect(),
            ancestors.into_iter().collect(),
            tags,
        )))
    }
}

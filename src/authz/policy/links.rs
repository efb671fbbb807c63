//! Links: what fills the slots of templates, `?principal` and `?resource`, from `*.links.json`.
//!
//! A file is an array in the form of `templateLinks` in Cedar's JSON policy sets. A link is a policy as any other: it
//! has an id of its own, is indexed by what fills its slots, and is named in records. It takes its template's
//! annotations, and shares its conditions, so a hundred thousand of them are small.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;

use super::cedar::{self, EntityType, EntityUID, Policy, PolicyID, SlotEnv, SlotId, Template};
use super::engine::PolicyInfo;
use super::load::Texts;
use super::source::{BundleError, Kind, line_of};
use super::validation::Validation;
use super::written::{Written, check_id, judge, there_twice};

/// A link and where it comes from.
pub(super) struct Link<'f> {
    file: &'f str,
    text: &'f str,
    pub(super) info: Arc<PolicyInfo>,
    /// Which of the written policies it fills.
    pub(super) template: usize,
    principal: Option<EntityUID>,
    resource: Option<EntityUID>,
}

#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "camelCase",
    expecting = "a link, `{\"templateId\": …, \"newId\": …, \"values\": {…}}`"
)]
struct LinkJson {
    template_id: String,
    new_id: String,
    values: ValuesJson,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "`{\"?principal\": {…}, \"?resource\": {…}}`, as the template has slots")]
struct ValuesJson {
    #[serde(rename = "?principal")]
    principal: Option<UidJson>,
    #[serde(rename = "?resource")]
    resource: Option<UidJson>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an entity, `{\"type\": …, \"id\": …}`")]
struct UidJson {
    r#type: String,
    id: String,
}

/// Reads the links of a bundle. `by_id` says where in `written` a policy is.
///
/// # Errors
/// [`BundleError`] for JSON that is none, an id that is there twice, a template that is none, and a slot that is not
/// filled or not there.
pub(super) fn read<'f>(
    texts: &Texts<'f>,
    written: &[Written<'f>],
    by_id: &HashMap<String, usize>,
) -> Result<Vec<Link<'f>>, BundleError> {
    let mut reading = Reading { written, by_id, templates: HashMap::new(), types: HashMap::new() };
    let mut links: Vec<Link<'f>> = Vec::new();
    for (file, text) in texts.of(Kind::Links) {
        let file_links: Vec<LinkJson> = serde_json::from_str(text).map_err(|error| BundleError::json(file, &error))?;
        for link in file_links {
            links.push(reading.link(file, text, link)?);
        }
    }
    let mut first: HashMap<&str, &Link<'f>> = HashMap::with_capacity(links.len());
    for link in &links {
        let id = link.info.id.as_str();
        let policy = by_id.get(id).and_then(|at| written.get(*at)).map(Written::place);
        let other = policy.or_else(|| first.insert(id, link).map(Link::place));
        if let Some(other) = other {
            return Err(link.wrong_at_last(there_twice(id, &other)));
        }
    }
    Ok(links)
}

struct Reading<'r, 'f> {
    written: &'r [Written<'f>],
    by_id: &'r HashMap<String, usize>,
    /// The id of each template that was linked, shared by its links.
    templates: HashMap<usize, Arc<str>>,
    types: HashMap<String, EntityType>,
}

impl Reading<'_, '_> {
    fn link<'f>(&mut self, file: &'f str, text: &'f str, json: LinkJson) -> Result<Link<'f>, BundleError> {
        let LinkJson { template_id, new_id, values: ValuesJson { principal, resource } } = json;
        let wrong = |message: String| BundleError {
            // Only for an error: it searches the whole text.
            line: lines_of_link(text, &new_id).next(),
            ..BundleError::new(file, format!("link `{}`: {message}", new_id.escape_debug()))
        };
        check_id(&new_id).map_err(|expected| wrong(format!("`newId`: {expected}")))?;
        let found = self.by_id.get(&template_id).and_then(|at| Some((*at, self.written.get(*at)?)));
        let (at, written) = found.ok_or_else(|| wrong(format!("there is no template `{template_id}`")))?;
        let Some(whole) = &written.template else {
            return Err(wrong(format!("`{template_id}` is a policy without slots, not a template")));
        };
        for (slot, value) in [(SlotId::principal(), &principal), (SlotId::resource(), &resource)] {
            match (has_slot(whole, slot), value) {
                (true, None) => return Err(wrong(format!("template `{template_id}` needs a value for `{slot}`"))),
                (false, Some(_)) => return Err(wrong(format!("template `{template_id}` has no slot `{slot}`"))),
                _ => {}
            }
        }
        let principal = principal.map(|json| self.uid(json)).transpose().map_err(wrong)?;
        let resource = resource.map(|json| self.uid(json)).transpose().map_err(wrong)?;
        let template = self.templates.entry(at).or_insert_with(|| template_id.into()).clone();
        let said = PolicyInfo::clone(&written.info);
        let info = PolicyInfo { id: new_id.clone(), template: Some(template), ..said };
        Ok(Link { file, text, info: Arc::new(info), template: at, principal, resource })
    }

    fn uid(&mut self, json: UidJson) -> Result<EntityUID, String> {
        if let Some(ty) = self.types.get(&json.r#type) {
            return Ok(cedar::uid(ty, &json.id));
        }
        let ty = cedar::entity_type(&json.r#type).ok_or_else(|| format!("`{}` is no entity type", json.r#type))?;
        let uid = cedar::uid(&ty, &json.id);
        self.types.insert(json.r#type, ty);
        Ok(uid)
    }
}

fn has_slot(template: &Template, slot: SlotId) -> bool {
    template.slots().any(|found| found.id == slot)
}

/// The lines of a link, given its id, wherever it is a `newId`: it may also be a template's, or an entity's.
fn lines_of_link(text: &str, id: &str) -> impl DoubleEndedIterator<Item = usize> {
    let quoted = serde_json::Value::from(id).to_string();
    let is_new_id = |at: &usize| {
        let before = text.get(..*at).unwrap_or_default().trim_end();
        before.strip_suffix(':').is_some_and(|before| before.trim_end().ends_with("\"newId\""))
    };
    let places: Vec<usize> = text.match_indices(&quoted).map(|(at, _)| at).filter(is_new_id).collect();
    places.into_iter().map(|at| line_of(text, at))
}

impl Link<'_> {
    pub(super) fn wrong(&self, message: String) -> BundleError {
        BundleError { line: lines_of_link(self.text, &self.info.id).next(), ..BundleError::new(self.file, message) }
    }

    /// The same, at the last place of its id.
    fn wrong_at_last(&self, message: String) -> BundleError {
        BundleError {
            line: lines_of_link(self.text, &self.info.id).next_back(),
            ..BundleError::new(self.file, message)
        }
    }

    /// File and line.
    fn place(&self) -> String {
        let line = lines_of_link(self.text, &self.info.id).next().unwrap_or(1);
        format!("{}:{line}", self.file)
    }

    /// What fills its slots.
    pub(super) fn values(&self) -> impl Iterator<Item = &EntityUID> {
        self.principal.iter().chain(&self.resource)
    }

    /// The policy that it makes of its template.
    ///
    /// # Errors
    /// None, once it has been read: every slot is filled.
    pub(super) fn policy(&self, written: &[Written<'_>]) -> Result<Policy, BundleError> {
        let template = written.get(self.template).and_then(|written| written.template.clone());
        let template = template.ok_or_else(|| self.wrong("its template is gone".into()))?;
        let principal = self.principal.iter().map(|uid| (SlotId::principal(), uid.clone()));
        let resource = self.resource.iter().map(|uid| (SlotId::resource(), uid.clone()));
        let values: SlotEnv = principal.chain(resource).collect();
        Template::link(template, PolicyID::from_string(&self.info.id), values)
            .map_err(|error| self.wrong(error.to_string()))
    }
}

/// Strict validation of links whose templates are valid. It depends on the types of what fills the slots, so one link of
/// each kind is enough.
///
/// # Errors
/// The first link with which its template is wrong, or can never apply.
pub(super) fn validate(
    validation: &Validation<'_>,
    written: &[Written<'_>],
    links: &[Link<'_>],
) -> Result<(), BundleError> {
    let kind = |uid: &Option<EntityUID>| uid.as_ref().map(|uid| uid.entity_type().clone());
    let mut seen = HashSet::new();
    for link in links.iter().filter(|link| seen.insert((link.template, kind(&link.principal), kind(&link.resource)))) {
        let mut set = cedar::PolicySet::new();
        set.add(link.policy(written)?).map_err(|error| link.wrong(error.to_string()))?;
        let template = written.get(link.template).ok_or_else(|| link.wrong("its template is gone".into()))?;
        judge(validation, template, &set.into()).map_err(|wrong| {
            link.wrong(format!("link `{}` of `{}`: {}", link.info.id, template.info.id, wrong.message))
        })?;
    }
    Ok(())
}

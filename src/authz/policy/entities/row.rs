//! One entity as it is kept: a few bytes, from which Cedar's entity is made when a call is about it.
//!
//! A million of Cedar's entities are gigabytes; a million rows are what their texts are. Nothing is parsed to read one,
//! dates and addresses apart: Cedar makes those from their texts only.

use std::sync::{Arc, LazyLock};

use foldhash::HashMap;

use super::super::cedar::{
    Entity, EntityType, EntityUID, Expr, ExprKind, Extensions, Literal, Name, PartialValue, RestrictedExpr,
    ValidatorSchema, Value, ValueKind, id_of, uid,
};

/// The constructors of extension values that can stand in an entity; each is kept as its place in this list.
const CONSTRUCTORS: &[&str] = &["ip", "decimal", "datetime", "duration", "offset"];
static NAMES: LazyLock<Vec<Name>> =
    LazyLock::new(|| CONSTRUCTORS.iter().filter_map(|name| name.parse().ok()).collect());

/// Bytes of the print that a row begins with.
const PRINT: usize = size_of::<u64>();

/// What a value begins with.
mod tag {
    pub(super) const FALSE: u8 = 0;
    pub(super) const TRUE: u8 = 1;
    pub(super) const LONG: u8 = 2;
    pub(super) const STRING: u8 = 3;
    pub(super) const ENTITY: u8 = 4;
    pub(super) const SET: u8 = 5;
    pub(super) const RECORD: u8 = 6;
    pub(super) const EXTENSION: u8 = 7;
}

/// The entity types of a schema, numbered.
#[derive(Debug)]
pub(super) struct TypeTable {
    types: Vec<EntityType>,
    numbers: HashMap<EntityType, u16>,
    names: HashMap<String, u16>,
}

impl TypeTable {
    /// The types of a schema; `None` if it has more than 65,535.
    pub(super) fn new(schema: &ValidatorSchema) -> Option<Self> {
        let mut types: Vec<EntityType> = schema.entity_type_names().map(|ty| ty.with_loc(None)).collect();
        types.sort_unstable();
        u16::try_from(types.len()).ok()?;
        let numbers: HashMap<EntityType, u16> = types.iter().cloned().zip(0..).collect();
        let names = types.iter().map(ToString::to_string).zip(0..).collect();
        Some(Self { types, numbers, names })
    }

    /// The number of a type.
    pub(super) fn number(&self, ty: &EntityType) -> Option<u16> {
        self.numbers.get(ty).copied()
    }

    /// The number of the type with this name.
    pub(super) fn named(&self, name: &str) -> Option<u16> {
        self.names.get(name).copied()
    }

    /// The uid of an entity.
    pub(super) fn uid(&self, ty: u16, id: &str) -> Option<EntityUID> {
        self.types.get(usize::from(ty)).map(|ty| uid(ty, id))
    }
}

/// An entity: its parents are a set that others share, the rest is in `data`.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Print of the text that it was read from, id, attributes, tags.
    data: Arc<[u8]>,
    /// Its parents, see `hierarchy.rs`.
    pub(super) set: u32,
    /// Its type, see [`TypeTable`].
    pub(super) ty: u16,
    /// The file that defines it.
    pub(super) file: u16,
}

impl Row {
    /// A row of an entity that was read from a text with this print; `None` for what cannot be kept: a value that is
    /// unknown, or of a type or an extension that the schema's language does not have.
    pub(super) fn new(table: &TypeTable, entity: &Entity, print: u64, set: u32, file: u16) -> Option<Self> {
        let ty = table.number(entity.uid().entity_type())?;
        let mut writer = Writer { table, bytes: print.to_le_bytes().to_vec() };
        writer.text(id_of(entity.uid()))?;
        writer.members(entity.attrs_len(), entity.attrs().map(|(name, value)| (name.as_str(), value)))?;
        writer.members(entity.tags_len(), entity.tags().map(|(name, value)| (name.as_str(), value)))?;
        let row = Self { data: writer.bytes.into(), set, ty, file };
        // What was written is read once, now, so that no request finds that it cannot be.
        let (attributes, tags) = row.values(table)?;
        // In the order in which they were written.
        let same = |(kept, (name, value)): (&(&str, Value), (&str, &PartialValue))| {
            kept.0 == name && matches!(value, PartialValue::Value(value) if kept.1 == *value)
        };
        let written = entity.attrs().map(|(name, value)| (name.as_str(), value));
        let tagged = entity.tags().map(|(name, value)| (name.as_str(), value));
        let whole = attributes.len() == entity.attrs_len() && tags.len() == entity.tags_len();
        (whole && attributes.iter().zip(written).all(same) && tags.iter().zip(tagged).all(same)).then_some(row)
    }

    /// The print of the text that it was read from.
    pub(super) fn print(&self) -> Option<u64> {
        self.data.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// The id, without the type.
    pub(super) fn id(&self) -> &str {
        self.reader().text().unwrap_or_default()
    }

    /// Whether it is the entity of this type and id.
    pub(super) fn is(&self, ty: u16, id: &str) -> bool {
        self.ty == ty && self.id() == id
    }

    /// Whether it says the same of the same entity, parents apart.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        self.ty == other.ty && self.data.get(PRINT..) == other.data.get(PRINT..)
    }

    /// Attributes and tags.
    pub(super) fn values(&self, table: &TypeTable) -> Option<(Members<'_>, Members<'_>)> {
        let mut reader = self.reader();
        reader.text()?;
        let both = (reader.members(table)?, reader.members(table)?);
        reader.bytes.is_empty().then_some(both)
    }

    fn reader(&self) -> Reader<'_> {
        Reader { bytes: self.data.get(PRINT..).unwrap_or_default() }
    }
}

/// Names and values, as they are made from a row.
type Members<'r> = Vec<(&'r str, Value)>;

struct Writer<'t> {
    table: &'t TypeTable,
    bytes: Vec<u8>,
}

impl Writer<'_> {
    /// A length: seven bits a byte, the lowest first.
    fn length(&mut self, length: usize) -> Option<()> {
        let mut rest = u32::try_from(length).ok()?;
        while rest >= 0x80 {
            self.bytes.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.push((rest & 0x7f) as u8);
        Some(())
    }

    fn text(&mut self, text: &str) -> Option<()> {
        self.length(text.len())?;
        self.bytes.extend_from_slice(text.as_bytes());
        Some(())
    }

    fn members<'v>(&mut self, count: usize, members: impl Iterator<Item = (&'v str, &'v PartialValue)>) -> Option<()> {
        self.length(count)?;
        for (name, value) in members {
            let PartialValue::Value(value) = value else { return None };
            self.text(name)?;
            self.value(value)?;
        }
        Some(())
    }

    fn value(&mut self, value: &Value) -> Option<()> {
        match &value.value {
            ValueKind::Lit(literal) => self.literal(literal),
            ValueKind::Set(set) => {
                self.bytes.push(tag::SET);
                self.length(set.len())?;
                set.iter().try_for_each(|value| self.value(value))
            }
            ValueKind::Record(record) => {
                self.bytes.push(tag::RECORD);
                self.length(record.len())?;
                record.iter().try_for_each(|(name, value)| {
                    self.text(name)?;
                    self.value(value)
                })
            }
            ValueKind::ExtensionValue(value) => self.call(&RestrictedExpr::from((**value).clone())),
        }
    }

    fn literal(&mut self, literal: &Literal) -> Option<()> {
        match literal {
            Literal::Bool(true) => self.bytes.push(tag::TRUE),
            Literal::Bool(false) => self.bytes.push(tag::FALSE),
            Literal::Long(number) => {
                self.bytes.push(tag::LONG);
                self.bytes.extend_from_slice(&number.to_le_bytes());
            }
            Literal::String(text) => {
                self.bytes.push(tag::STRING);
                self.text(text)?;
            }
            Literal::EntityUID(uid) => {
                self.bytes.push(tag::ENTITY);
                self.bytes.extend_from_slice(&self.table.number(uid.entity_type())?.to_le_bytes());
                self.text(id_of(uid))?;
            }
        }
        Some(())
    }

    /// The call that makes an extension value.
    fn call(&mut self, expression: &Expr) -> Option<()> {
        match expression.expr_kind() {
            ExprKind::Lit(literal) => self.literal(literal),
            ExprKind::ExtensionFunctionApp { fn_name, args } => {
                let number = NAMES.iter().position(|name| name == fn_name)?;
                self.bytes.push(tag::EXTENSION);
                self.bytes.push(u8::try_from(number).ok()?);
                self.length(args.len())?;
                args.iter().try_for_each(|argument| self.call(argument))
            }
            _ => None,
        }
    }
}

struct Reader<'r> {
    bytes: &'r [u8],
}

impl<'r> Reader<'r> {
    fn take(&mut self, count: usize) -> Option<&'r [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.first_chunk().copied()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn length(&mut self) -> Option<usize> {
        let (mut length, mut shift) = (0u32, 0);
        loop {
            let byte = self.byte()?;
            length |= u32::from(byte & 0x7f).checked_shl(shift)?;
            shift += 7;
            if byte < 0x80 {
                return usize::try_from(length).ok();
            }
        }
    }

    fn text(&mut self) -> Option<&'r str> {
        let length = self.length()?;
        std::str::from_utf8(self.take(length)?).ok()
    }

    fn members(&mut self, table: &TypeTable) -> Option<Members<'r>> {
        let count = self.length()?;
        (0..count).map(|_| Some((self.text()?, self.value(table)?))).collect()
    }

    fn value(&mut self, table: &TypeTable) -> Option<Value> {
        Some(match self.byte()? {
            tag::FALSE => Value::from(false),
            tag::TRUE => Value::from(true),
            tag::LONG => Value::from(i64::from_le_bytes(self.array()?)),
            tag::STRING => Value::from(self.text()?),
            tag::ENTITY => {
                let ty = u16::from_le_bytes(self.array()?);
                Value::from(table.uid(ty, self.text()?)?)
            }
            tag::SET => {
                let count = self.length()?;
                let values: Option<Vec<Value>> = (0..count).map(|_| self.value(table)).collect();
                Value::set(values?, None)
            }
            tag::RECORD => Value::record(self.members(table)?, None),
            tag::EXTENSION => {
                let name = NAMES.get(usize::from(self.byte()?))?;
                let count = self.length()?;
                let arguments: Option<Vec<Value>> = (0..count).map(|_| self.value(table)).collect();
                match Extensions::all_available().func(name).ok()?.call(&arguments?).ok()? {
                    PartialValue::Value(value) => value,
                    PartialValue::Residual(_) => return None,
                }
            }
            _ => return None,
        })
    }
}

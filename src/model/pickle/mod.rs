//! A pickle reader that runs nothing.
//!
//! Python's pickles are programs; this reader knows the opcodes that PyTorch writes (protocols 2
//! to 5) and turns calls into data: `REDUCE` becomes an [`Object`] that remembers what would be
//! called with what. Values live in one arena and refer to each other by index, so that no nesting
//! can overflow a stack, neither here nor when they are dropped, and shared values stay shared.

mod error;
mod read;

pub use error::PickleError;
pub use read::{Limits, read};

/// Index of a value in its [`Pickle`].
pub type Id = u32;

/// A value; text is borrowed from the bytes read.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// `None`
    None,
    /// `True`, `False`
    Bool(bool),
    /// A whole number that fits.
    Int(i64),
    /// A float.
    Float(f64),
    /// Text.
    Str(&'a str),
    /// Bytes, or a whole number of more than 64 bits: nothing reads them.
    Opaque,
    /// A tuple.
    Tuple(Vec<Id>),
    /// A list, or a set.
    List(Vec<Id>),
    /// A dictionary, in its order.
    Dict(Vec<(Id, Id)>),
    /// A class or function by its module and name. Never looked up.
    Global(&'a str, &'a str),
    /// Whatever a call would have made.
    Object(Box<Object>),
    /// A reference out of the pickle: in a checkpoint, a tensor's storage.
    Persistent(Id),
}

/// A call that was not made.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// What would be called, usually a [`Value::Global`].
    pub callee: Id,
    /// Its arguments, a tuple.
    pub args: Id,
    /// What `__setstate__` would get.
    pub state: Option<Id>,
    /// Items set on it, for dictionaries' descendants such as `OrderedDict`.
    pub items: Vec<(Id, Id)>,
}

/// All values of a pickle.
#[derive(Debug)]
pub struct Pickle<'a> {
    pub(super) values: Vec<Value<'a>>,
    pub(super) root: Id,
}

impl<'a> Pickle<'a> {
    /// The value at an index that came from this pickle.
    pub fn get(&self, id: Id) -> &Value<'a> {
        &self.values[id as usize]
    }

    /// The value that the pickle stands for.
    pub fn root(&self) -> Id {
        self.root
    }

    /// Entries of a dictionary or of an object with items; none for anything else.
    pub fn entries(&self, id: Id) -> &[(Id, Id)] {
        match self.get(id) {
            Value::Dict(entries) => entries,
            Value::Object(object) => &object.items,
            _ => &[],
        }
    }

    /// Elements of a tuple or list; none for anything else.
    pub fn elements(&self, id: Id) -> &[Id] {
        match self.get(id) {
            Value::Tuple(items) | Value::List(items) => items,
            _ => &[],
        }
    }

    /// The entry under a text key.
    pub fn lookup(&self, id: Id, key: &str) -> Option<Id> {
        // The last one counts, as in Python.
        self.entries(id).iter().rev().find(|(k, _)| self.str(*k) == Some(key)).map(|(_, v)| *v)
    }

    /// Text.
    pub fn str(&self, id: Id) -> Option<&'a str> {
        match self.get(id) {
            Value::Str(s) => Some(s),
            _ => None,
        }
    }

    /// A whole number.
    pub fn int(&self, id: Id) -> Option<i64> {
        match self.get(id) {
            Value::Int(i) => Some(*i),
            _ => None,
        }
    }

    /// A whole number that is a size or an index.
    pub fn size(&self, id: Id) -> Option<usize> {
        self.int(id).and_then(|i| usize::try_from(i).ok())
    }

    /// A call that was not made.
    pub fn object(&self, id: Id) -> Option<&Object> {
        match self.get(id) {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// Module and name of a class or function.
    pub fn global(&self, id: Id) -> Option<(&'a str, &'a str)> {
        match self.get(id) {
            Value::Global(module, name) => Some((module, name)),
            _ => None,
        }
    }

    /// Module and name of what an object would have been made by.
    pub fn class(&self, id: Id) -> Option<(&'a str, &'a str)> {
        self.global(self.object(id)?.callee)
    }
}

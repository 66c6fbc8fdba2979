//! The opcode loop: a stack machine with limits on everything that input can make grow.
//!
//! Source of the opcodes: CPython's `pickletools`.

use std::collections::HashMap;

use super::{Id, Object, Pickle, PickleError, Value};

/// What a pickle may grow to.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the pickle.
    pub bytes: usize,
    /// Values made; also the most that lie on the stack or in the memo.
    pub values: usize,
    /// Elements and entries of all tuples, lists and dictionaries together.
    pub elements: usize,
}

impl Default for Limits {
    /// Ten times what the largest YOLOv8 with its optimizer needs; worst case some 100 MB.
    fn default() -> Self {
        Self { bytes: 16 << 20, values: 1 << 19, elements: 1 << 21 }
    }
}

/// Reads one pickle. Bytes after its `STOP` are not looked at.
pub fn read(bytes: &[u8], limits: Limits) -> Result<Pickle<'_>, PickleError> {
    if bytes.len() > limits.bytes {
        return Err(PickleError::TooLong { found: bytes.len(), limit: limits.bytes });
    }
    let mut machine = Machine {
        bytes,
        at: 0,
        limits,
        values: Vec::new(),
        elements: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    loop {
        let at = machine.at;
        let opcode = machine.byte()?;
        if opcode == b'.' {
            let root = machine.pop()?;
            return Ok(Pickle { values: machine.values, root });
        }
        machine.step(opcode, at)?;
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    limits: Limits,
    values: Vec<Value<'a>>,
    elements: usize,
    stack: Vec<Id>,
    /// Heights of the stack at each open `MARK`.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    fn step(&mut self, opcode: u8, at: usize) -> Result<(), PickleError> {
        match opcode {
            0x80 => self.protocol(),
            // FRAME: a hint of how much follows.
            0x95 => self.take(8).map(|_| ()),
            b'(' => self.mark(),
            b'0' => self.pop().map(|_| ()),
            b'1' => self.pop_mark().map(|_| ()),
            b'2' => self.pop().and_then(|top| self.push_id(top).and_then(|()| self.push_id(top))),
            b'N' | 0x88 | 0x89 | b'J' | b'K' | b'M' | 0x8a | 0x8b | b'G' => self.number(opcode),
            b'X' | 0x8c | 0x8d => self.text(opcode),
            b'B' | b'C' | 0x8e | 0x96 => self.opaque(opcode),
            b')' => self.push(Value::Tuple(Vec::new())),
            b']' | 0x8f => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            b't' | 0x85 | 0x86 | 0x87 | b'l' | 0x91 => self.sequence(opcode),
            b'd' => self.dict(),
            b'a' | b'e' | 0x90 => self.append(opcode, at),
            b's' | b'u' => self.set_items(opcode, at),
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memoize(opcode, at),
            b'c' | 0x93 => self.global(opcode, at),
            b'R' | 0x81 | 0x92 => self.call(opcode),
            b'b' => self.build(at),
            b'Q' => self.pop().and_then(|id| self.push(Value::Persistent(id))),
            found => Err(PickleError::Opcode { at, found }),
        }
    }

    fn protocol(&mut self) -> Result<(), PickleError> {
        match self.byte()? {
            2..=5 => Ok(()),
            found => Err(PickleError::Protocol { found }),
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], PickleError> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or(PickleError::Truncated { at: self.bytes.len() })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, PickleError> {
        Ok(self.take(1)?[0])
    }

    /// A little-endian count of 1, 2, 4 or 8 bytes.
    fn count(&mut self, width: usize) -> Result<u64, PickleError> {
        Ok(self.take(width)?.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
    }

    fn length(&mut self, width: usize) -> Result<usize, PickleError> {
        let count = self.count(width)?;
        usize::try_from(count).map_err(|_| PickleError::Truncated { at: self.bytes.len() })
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), PickleError> {
        if self.values.len() >= self.limits.values {
            return Err(PickleError::TooManyValues { at: self.at, limit: self.limits.values });
        }
        self.values.push(value);
        self.push_id((self.values.len() - 1) as Id)
    }

    fn push_id(&mut self, id: Id) -> Result<(), PickleError> {
        if self.stack.len() >= self.limits.values {
            return Err(PickleError::TooManyValues { at: self.at, limit: self.limits.values });
        }
        self.stack.push(id);
        Ok(())
    }

    fn mark(&mut self) -> Result<(), PickleError> {
        if self.marks.len() >= self.limits.values {
            return Err(PickleError::TooManyValues { at: self.at, limit: self.limits.values });
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// Takes the top, which must not lie below the last mark.
    fn pop(&mut self) -> Result<Id, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(PickleError::Underflow { at: self.at });
        }
        self.stack.pop().ok_or(PickleError::Underflow { at: self.at })
    }

    fn top(&self) -> Result<Id, PickleError> {
        self.stack.last().copied().ok_or(PickleError::Underflow { at: self.at })
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self.marks.pop().filter(|&m| m <= self.stack.len());
        let mark = mark.ok_or(PickleError::Underflow { at: self.at })?;
        self.grow(self.stack.len() - mark)?;
        Ok(self.stack.split_off(mark))
    }

    /// Counts elements before they are stored.
    fn grow(&mut self, by: usize) -> Result<(), PickleError> {
        self.elements += by;
        if self.elements > self.limits.elements {
            return Err(PickleError::TooManyElements { at: self.at, limit: self.limits.elements });
        }
        Ok(())
    }

    fn number(&mut self, opcode: u8) -> Result<(), PickleError> {
        let value = match opcode {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'J' => Value::Int(i64::from(self.count(4)? as u32 as i32)),
            b'K' => Value::Int(self.count(1)? as i64),
            b'M' => Value::Int(self.count(2)? as i64),
            b'G' => {
                let bits = self.take(8)?.iter().fold(0u64, |n, &b| n << 8 | u64::from(b));
                Value::Float(f64::from_bits(bits))
            }
            _ => {
                let len = self.length(if opcode == 0x8a { 1 } else { 4 })?;
                long(self.take(len)?)
            }
        };
        self.push(value)
    }

    fn text(&mut self, opcode: u8) -> Result<(), PickleError> {
        let width = match opcode {
            b'X' => 4,
            0x8c => 1,
            _ => 8,
        };
        let len = self.length(width)?;
        let at = self.at;
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| PickleError::Utf8 { at })?;
        self.push(Value::Str(text))
    }

    fn opaque(&mut self, opcode: u8) -> Result<(), PickleError> {
        let width = match opcode {
            b'B' => 4,
            b'C' => 1,
            _ => 8,
        };
        let len = self.length(width)?;
        self.take(len)?;
        self.push(Value::Opaque)
    }

    fn sequence(&mut self, opcode: u8) -> Result<(), PickleError> {
        let fixed = match opcode {
            0x85 => Some(1),
            0x86 => Some(2),
            0x87 => Some(3),
            _ => None,
        };
        let items = match fixed {
            None => self.pop_mark()?,
            Some(n) => {
                self.grow(n)?;
                let mut items = vec![0; n];
                for slot in items.iter_mut().rev() {
                    *slot = self.pop()?;
                }
                items
            }
        };
        // FROZENSET and LIST make lists.
        self.push(if matches!(opcode, b'l' | 0x91) { Value::List(items) } else { Value::Tuple(items) })
    }

    fn dict(&mut self) -> Result<(), PickleError> {
        let at = self.at;
        let items = self.pop_mark()?;
        let entries = pairs(&items).ok_or(PickleError::Kind { at, expected: "keys with values" })?;
        self.push(Value::Dict(entries))
    }

    fn append(&mut self, opcode: u8, at: usize) -> Result<(), PickleError> {
        let items = if opcode == b'a' {
            self.grow(1)?;
            vec![self.pop()?]
        } else {
            self.pop_mark()?
        };
        let list = self.top()?;
        match &mut self.values[list as usize] {
            Value::List(list) => list.extend(items),
            // Descendants of list and set: nothing here reads their elements.
            Value::Object(_) => {}
            _ => return Err(PickleError::Kind { at, expected: "a list to append to" }),
        }
        Ok(())
    }

    fn set_items(&mut self, opcode: u8, at: usize) -> Result<(), PickleError> {
        let items = if opcode == b's' {
            self.grow(2)?;
            let value = self.pop()?;
            vec![self.pop()?, value]
        } else {
            self.pop_mark()?
        };
        let entries = pairs(&items).ok_or(PickleError::Kind { at, expected: "keys with values" })?;
        let target = self.top()?;
        match &mut self.values[target as usize] {
            Value::Dict(dict) => dict.extend(entries),
            Value::Object(object) => object.items.extend(entries),
            _ => return Err(PickleError::Kind { at, expected: "a dictionary to set items on" }),
        }
        Ok(())
    }

    fn memoize(&mut self, opcode: u8, at: usize) -> Result<(), PickleError> {
        let index = match opcode {
            b'q' | b'h' => self.count(1)? as u32,
            b'r' | b'j' => self.count(4)? as u32,
            _ => self.memo.len() as u32,
        };
        if matches!(opcode, b'h' | b'j') {
            let id = self.memo.get(&index).copied().ok_or(PickleError::Memo { at, found: index })?;
            return self.push_id(id);
        }
        if self.memo.len() >= self.limits.values {
            return Err(PickleError::TooManyValues { at, limit: self.limits.values });
        }
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn global(&mut self, opcode: u8, at: usize) -> Result<(), PickleError> {
        let (module, name) = if opcode == b'c' {
            (self.line()?, self.line()?)
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            match (&self.values[module as usize], &self.values[name as usize]) {
                (Value::Str(module), Value::Str(name)) => (*module, *name),
                _ => return Err(PickleError::Kind { at, expected: "a module's and a class's name" }),
            }
        };
        self.push(Value::Global(module, name))
    }

    fn line(&mut self) -> Result<&'a str, PickleError> {
        let at = self.at;
        let rest = &self.bytes[at..];
        let len = rest.iter().position(|&b| b == b'\n');
        let len = len.ok_or(PickleError::Truncated { at: self.bytes.len() })?;
        self.at += len + 1;
        std::str::from_utf8(&rest[..len]).map_err(|_| PickleError::Utf8 { at })
    }

    /// REDUCE and NEWOBJ take a callee and arguments; NEWOBJ_EX also keywords, which are dropped.
    fn call(&mut self, opcode: u8) -> Result<(), PickleError> {
        if opcode == 0x92 {
            self.pop()?;
        }
        let args = self.pop()?;
        let callee = self.pop()?;
        self.push(Value::Object(Box::new(Object { callee, args, state: None, items: Vec::new() })))
    }

    fn build(&mut self, at: usize) -> Result<(), PickleError> {
        let state = self.pop()?;
        let target = self.top()?;
        match &mut self.values[target as usize] {
            Value::Object(object) => object.state = Some(state),
            _ => return Err(PickleError::Kind { at, expected: "an object to set the state of" }),
        }
        Ok(())
    }
}

/// A little-endian two's-complement number of any length.
fn long<'a>(bytes: &[u8]) -> Value<'a> {
    if bytes.len() > 8 {
        return Value::Opaque;
    }
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let start = if negative { -1i64 } else { 0 };
    Value::Int(bytes.iter().rev().fold(start, |n, &b| n << 8 | i64::from(b)))
}

fn pairs(items: &[Id]) -> Option<Vec<(Id, Id)>> {
    if !items.len().is_multiple_of(2) {
        return None;
    }
    Some(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(bytes: &[u8]) -> PickleError {
        read(bytes, Limits::default()).unwrap_err()
    }

    #[test]
    fn reads_numbers_text_and_containers() {
        // {'a': (1, -2, 1.5, None, True, 300), 'b': [2**33]}, protocol 2
        let bytes = b"\x80\x02}(X\x01\x00\x00\x00a(K\x01J\xfe\xff\xff\xffG\x3f\xf8\x00\x00\x00\x00\x00\x00N\x88M\x2c\x01tX\x01\x00\x00\x00b]\x8a\x05\x00\x00\x00\x00\x02au.";
        let pickle = read(bytes, Limits::default()).unwrap();
        let a = pickle.lookup(pickle.root(), "a").unwrap();
        let a: Vec<_> = pickle.elements(a).iter().map(|&id| pickle.get(id).clone()).collect();
        use Value::*;
        assert_eq!(a, [Int(1), Int(-2), Float(1.5), None, Bool(true), Int(300)]);
        let b = pickle.elements(pickle.lookup(pickle.root(), "b").unwrap())[0];
        assert_eq!(pickle.int(b), Some(1 << 33));
    }

    #[test]
    fn calls_become_data() {
        let pickle = read(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", Limits::default()).unwrap();
        assert_eq!(pickle.class(pickle.root()), Some(("os", "system")));
        let stack_global = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93).";
        assert!(read(stack_global, Limits::default()).is_ok());
    }

    #[test]
    fn long_numbers_keep_their_sign() {
        assert_eq!(long(&[]), Value::Int(0));
        assert_eq!(long(&[0xff]), Value::Int(-1));
        assert_eq!(long(&[0xff, 0x00]), Value::Int(255));
        assert_eq!(long(&[0, 0, 0, 0, 0, 0, 0, 0x80]), Value::Int(i64::MIN));
        assert_eq!(long(&[1; 9]), Value::Opaque);
    }

    #[test]
    fn each_fault_has_its_error() {
        use PickleError::*;
        let short = Limits { bytes: 3, ..Limits::default() };
        assert_eq!(read(b"NNN.", short).unwrap_err(), TooLong { found: 4, limit: 3 });
        assert_eq!(fault(b""), Truncated { at: 0 });
        assert_eq!(fault(b"N"), Truncated { at: 1 });
        assert_eq!(fault(b"X\xff\xff\xff\x7fa"), Truncated { at: 6 });
        assert_eq!(fault(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffa"), Truncated { at: 10 });
        assert_eq!(fault(b"i"), Opcode { at: 0, found: b'i' });
        assert_eq!(fault(b"\x80\x06"), Protocol { found: 6 });
        assert_eq!(fault(b"."), Underflow { at: 1 });
        assert_eq!(fault(b"t"), Underflow { at: 1 });
        assert_eq!(fault(b"N(0"), Underflow { at: 3 });
        assert!(matches!(fault(b"NNa"), Kind { at: 2, .. }));
        assert!(matches!(fault(b"NNNs"), Kind { .. }));
        assert!(matches!(fault(b"}(Nu"), Kind { .. }));
        assert!(matches!(fault(b"NNb"), Kind { .. }));
        assert_eq!(fault(b"h\x07"), Memo { at: 0, found: 7 });
        assert_eq!(fault(b"X\x01\x00\x00\x00\xff"), Utf8 { at: 5 });
    }

    #[test]
    fn bombs_end_at_a_limit() {
        let mut nested = vec![b'N'];
        nested.resize(2 << 20, 0x85);
        assert!(matches!(fault(&nested), PickleError::TooManyValues { .. }));
        let marks = vec![b'('; 2 << 20];
        assert!(matches!(fault(&marks), PickleError::TooManyValues { .. }));
        // Each round doubles what a naive reader would copy: (x, x) of the memo's last.
        let mut doubling = b"Nq\x00".to_vec();
        for _ in 0..200 {
            doubling.extend(b"h\x00h\x00\x86q\x00");
        }
        doubling.push(b'.');
        assert_eq!(read(&doubling, Limits::default()).unwrap().values.len(), 201);
        let few = Limits { elements: 3, ..Limits::default() };
        assert!(matches!(read(b"NN\x86NN\x86.", few), Err(PickleError::TooManyElements { .. })));
    }
}

//! The fields of one head as they were sent: order, letter case, blanks and all. Old programs compare them as they stand, so a field that
//! nobody has changed leaves as the very line that it came as.
//!
//! Not a map: a head has a dozen fields, most calls ask for a few of them, and most of those are not there, which one bit tells.

use std::cell::RefCell;
use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::head::{HeadFault, HeadLimits, HeadPlace, odd_byte, write_field};
use super::name::{Name, Names};
use super::spares;

/// See the top of this file.
#[derive(Default)]
pub struct Fields {
    head: Bytes,
    list: Vec<Entry>,
    names: Names,
}

/// Where in the head a field stands. Heads are bounded far below 4 GiB.
#[derive(Clone)]
struct Entry {
    name: Name,
    start: u32,
    name_end: u32,
    value_start: u32,
    value_end: u32,
    /// Behind its CR LF.
    end: u32,
    /// In place of the value that was sent.
    ours: Option<HeaderValue>,
}

/// One field.
#[derive(Clone, Copy)]
pub struct Field<'f> {
    pub name: Name,
    /// The name in its sender's letters.
    pub spelled: &'f [u8],
    pub value: &'f [u8],
    /// All of it with its CR LF, where nobody has changed it.
    line: Option<&'f [u8]>,
}

/// A field that may stand only once stands twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Twice;

thread_local! {
    // Each call needs two lists, of one size or nearly.
    static SPARES: RefCell<Vec<Vec<Entry>>> = const { RefCell::new(Vec::new()) };
}

/// How many lists a worker keeps, and how large they may have become.
const SPARE_LISTS: usize = 32;
const SPARE_ENTRIES: usize = 64;

impl Fields {
    /// The lines of a head from `at` on, up to the blank one that ends it.
    pub(super) fn parse(head: Bytes, mut at: usize, limits: &HeadLimits) -> Result<Self, HeadFault> {
        let list = spares::take(&SPARES).unwrap_or_else(|| Vec::with_capacity(16));
        let mut fields = Self { head, list, names: Names::NONE };
        loop {
            let line = &fields.head[at..];
            if line.starts_with(b"\r\n") {
                return Ok(fields);
            }
            if fields.list.len() == limits.fields {
                return Err(HeadFault::TooLarge);
            }
            let entry = entry(line, at, fields.list.len() + 1)?;
            at = entry.end as usize;
            fields.names.add(entry.name);
            fields.list.push(entry);
        }
    }

    /// A head that somebody here puts together. Names and values that may not stand in one are refused.
    pub fn of<'a>(fields: impl IntoIterator<Item = (&'a str, impl AsRef<[u8]>)>) -> Result<Self, HeadFault> {
        let mut head = Vec::new();
        for (name, value) in fields {
            let value = value.as_ref();
            if !may_be_value(value) {
                return Err(HeadFault::Malformed);
            }
            write_field(&mut head, name.as_bytes(), value);
        }
        head.extend_from_slice(b"\r\n");
        Self::parse(Bytes::from(head), 0, &HeadLimits { bytes: usize::MAX, fields: usize::MAX })
    }

    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.list.iter().map(|entry| self.field(entry))
    }

    /// Whether one of these is here.
    pub fn has_any(&self, names: Names) -> bool {
        self.names.meet(names)
    }

    pub fn has(&self, name: Name) -> bool {
        self.names.has(name)
    }

    /// The values under this name, in their order.
    pub fn all(&self, name: Name) -> impl DoubleEndedIterator<Item = &[u8]> {
        let list = if self.has(name) { &self.list[..] } else { &[] };
        list.iter().filter(move |entry| entry.name == name).map(|entry| self.value(entry))
    }

    /// The first value under this name.
    pub fn get(&self, name: Name) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// The value under a name that must not stand twice.
    pub fn only(&self, name: Name) -> Result<Option<&[u8]>, Twice> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (one, None) => Ok(one),
            (_, Some(_)) => Err(Twice),
        }
    }

    /// Whether one of the lists under this name has this word among its own.
    pub fn says(&self, name: Name, word: &[u8]) -> bool {
        self.words(name).any(|one| one.eq_ignore_ascii_case(word))
    }

    /// The words of all lists under this name.
    pub fn words(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        self.all(name).flat_map(words)
    }

    /// How the sender spelled a name, if it used it; in lower case else.
    pub fn spelled(&self, name: Name) -> &[u8] {
        let sent = self.has(name).then(|| self.list.iter().find(|entry| entry.name == name)).flatten();
        sent.map_or(name.as_str().as_bytes(), |entry| self.field(entry).spelled)
    }

    /// Puts a value in place of all that stood under its name, or behind the other fields.
    pub fn set(&mut self, name: Name, value: HeaderValue) {
        let mut value = Some(value);
        if self.has(name) {
            self.list.retain_mut(|entry| {
                let first = entry.name == name && value.is_some();
                if first {
                    entry.ours = value.take();
                }
                first || entry.name != name
            });
        }
        if value.is_some() {
            self.names.add(name);
            let nowhere =
                Entry { name, start: 0, name_end: 0, value_start: 0, value_end: 0, end: 0, ours: value };
            self.list.push(nowhere);
        }
    }

    /// Puts another value in the place of each one for which there is one; the others stay as they were sent.
    pub fn change(&mut self, mut other: impl FnMut(Field<'_>) -> Option<HeaderValue>) {
        let mut list = std::mem::take(&mut self.list);
        for entry in &mut list {
            if let Some(value) = other(self.field(entry)) {
                entry.ours = Some(value);
            }
        }
        self.list = list;
    }

    /// Keeps the fields that `stays` is true for.
    pub fn retain(&mut self, mut stays: impl FnMut(Field<'_>) -> bool) {
        let mut list = std::mem::take(&mut self.list);
        list.retain(|entry| stays(self.field(entry)));
        self.names = Names::NONE;
        list.iter().for_each(|entry| self.names.add(entry.name));
        self.list = list;
    }

    /// For those who want a map.
    pub fn to_map(&self) -> HeaderMap {
        let value = |entry: &Entry| match &entry.ours {
            Some(ours) => Ok(ours.clone()),
            None => HeaderValue::from_maybe_shared(
                self.head.slice(entry.value_start as usize..entry.value_end as usize),
            ),
        };
        let pair =
            |entry| Some((HeaderName::from_bytes(self.field(entry).spelled).ok()?, value(entry).ok()?));
        let mut map = HeaderMap::with_capacity(self.list.len());
        // What was let in here may stand in any map.
        self.list.iter().filter_map(pair).for_each(|(name, value)| {
            map.append(name, value);
        });
        map
    }

    fn field<'f>(&'f self, entry: &'f Entry) -> Field<'f> {
        let line = &self.head[entry.start as usize..entry.end as usize];
        let spelled = match line {
            [] => entry.name.as_str().as_bytes(),
            line => &line[..(entry.name_end - entry.start) as usize],
        };
        let line = entry.ours.is_none().then_some(line);
        Field { name: entry.name, spelled, value: self.value(entry), line }
    }

    fn value<'f>(&'f self, entry: &'f Entry) -> &'f [u8] {
        match &entry.ours {
            Some(ours) => ours.as_bytes(),
            None => &self.head[entry.value_start as usize..entry.value_end as usize],
        }
    }
}

impl Field<'_> {
    pub fn write(&self, out: &mut Vec<u8>) {
        match self.line {
            Some(line) => out.extend_from_slice(line),
            None => write_field(out, self.spelled, self.value),
        }
    }
}

/// The words of a list.
pub fn words(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// A value as text, where it is some.
pub fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().filter(|text| text.is_ascii())
}

impl Drop for Fields {
    fn drop(&mut self) {
        let mut list = std::mem::take(&mut self.list);
        if list.capacity() == 0 || list.capacity() > SPARE_ENTRIES {
            return;
        }
        // What it held must not outlive its call.
        list.clear();
        spares::keep(&SPARES, SPARE_LISTS, list);
    }
}

impl fmt::Debug for Fields {
    /// Values hold what no log may.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|field| String::from_utf8_lossy(field.spelled))).finish()
    }
}

/// The field that `line` begins with, which stands at `at`. No blank may stand in a name, so neither before its colon, nor at the
/// beginning of a folded line.
fn entry(line: &[u8], at: usize, number: usize) -> Result<Entry, HeadFault> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or(HeadFault::Malformed)?;
    let name = Name::of(&line[..colon]);
    // Those that are known are made of nothing else.
    if name == Name::Other && !may_be_name(&line[..colon]) {
        return Err(odd_byte(&line[..colon], HeadPlace::FieldName(number), may_stand_in_token));
    }
    let behind = colon + 1;
    let end = behind + memchr::memchr(b'\n', &line[behind..]).ok_or(HeadFault::Malformed)?;
    let value = line[behind..end].strip_suffix(b"\r").ok_or(HeadFault::BareLineFeed)?;
    if !may_be_value(value) {
        return Err(odd_byte(value, HeadPlace::FieldValue(number), |byte| may_stand_in_value(&byte)));
    }
    let trimmed = value.trim_ascii();
    let before = value.len() - value.trim_ascii_start().len();
    // The whole head is bounded far below 4 GiB.
    let place = |offset: usize| (at + offset) as u32;
    Ok(Entry {
        name,
        start: place(0),
        name_end: place(colon),
        value_start: place(behind + before),
        value_end: place(behind + before + trimmed.len()),
        end: place(end + 1),
        ours: None,
    })
}

fn may_be_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| may_stand_in_token(*byte))
}

pub(super) fn may_stand_in_token(byte: u8) -> bool {
    MAY_STAND_IN_NAME[usize::from(byte)]
}

/// Eight bytes at a time: nearly all values hold printable characters and nothing else.
fn may_be_value(value: &[u8]) -> bool {
    let (words, rest) = value.as_chunks::<8>();
    let plain = words
        .iter()
        .all(|word| is_printable(u64::from_ne_bytes(*word)) || word.iter().all(may_stand_in_value));
    plain && rest.iter().all(may_stand_in_value)
}

/// No byte below the blank, and none that is DEL. May take bytes beyond ASCII for one: those are looked at one by one.
const fn is_printable(word: u64) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = ONES << 7;
    let below_blank = word.wrapping_sub(ONES * 0x20) & !word;
    let del = (word ^ (ONES * 0x7f)).wrapping_sub(ONES);
    (below_blank | del | word) & TOPS == 0
}

/// RFC 9110, 5.6.2.
static MAY_STAND_IN_NAME: [bool; 256] = {
    let mut may = [false; 256];
    let mut byte = 0;
    while byte < may.len() {
        let letter = byte as u8;
        may[byte] = letter.is_ascii_alphanumeric()
            || matches!(
                letter,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    may
};

/// RFC 9110, 5.5: no controls but the tab.
fn may_stand_in_value(byte: &u8) -> bool {
    *byte >= b' ' && *byte != 0x7f || *byte == b'\t'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(lines: &str) -> Fields {
        let limits = HeadLimits { bytes: 1000, fields: 10 };
        Fields::parse(Bytes::copy_from_slice(lines.as_bytes()), 0, &limits).unwrap()
    }

    fn written(fields: &Fields) -> String {
        let mut out = Vec::new();
        fields.iter().for_each(|field| field.write(&mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_keep_their_order_their_letter_case_and_their_bytes() {
        let lines = "HOST: a\r\nX-Thing:  \t1 2ä \r\nx-thing:\r\n\r\n";
        let mut fields = sent(lines);
        assert_eq!(written(&fields), lines.strip_suffix("\r\n").unwrap());
        let values: Vec<&[u8]> = fields.iter().map(|field| field.value).collect();
        assert_eq!(values, ["a".as_bytes(), "1 2ä".as_bytes(), b""]);
        // What is changed is written anew, under the name that was used.
        fields.set(Name::Host, HeaderValue::from_static("b"));
        fields.set(Name::Via, HeaderValue::from_static("v"));
        fields.set(Name::Via, HeaderValue::from_static("w"));
        assert_eq!(written(&fields), "HOST: b\r\nX-Thing:  \t1 2ä \r\nx-thing:\r\nvia: w\r\n");
        assert_eq!((fields.spelled(Name::Host), fields.spelled(Name::Te)), (&b"HOST"[..], &b"te"[..]));
        fields.retain(|field| field.name != Name::Other);
        assert_eq!(written(&fields), "HOST: b\r\nvia: w\r\n");
    }

    #[test]
    fn a_value_is_found_under_its_name_and_one_that_stands_twice_is_told() {
        let mut fields = sent("Via: a, b\r\nHost: x\r\nvia: c\r\n\r\n");
        assert_eq!(fields.get(Name::Via), Some(&b"a, b"[..]));
        assert_eq!(fields.only(Name::Host), Ok(Some(&b"x"[..])));
        assert_eq!(fields.only(Name::Via), Err(Twice));
        assert_eq!(fields.only(Name::Te), Ok(None));
        assert!(
            fields.says(Name::Via, b"C") && fields.says(Name::Via, b"b") && !fields.says(Name::Via, b"a, b")
        );
        assert_eq!(fields.to_map().get_all("via").iter().count(), 2);
        fields.set(Name::Via, HeaderValue::from_static("d"));
        assert_eq!(fields.only(Name::Via), Ok(Some(&b"d"[..])));
        fields.retain(|field| field.name != Name::Via);
        assert!(!fields.has(Name::Via) && fields.has(Name::Host));
    }

    #[test]
    fn a_list_that_is_used_again_holds_nothing_of_its_last_head() {
        drop(sent("Authorization: secret\r\nHost: a\r\n\r\n"));
        let second = sent("Host: b\r\n\r\n");
        assert_eq!(second.iter().count(), 1);
        assert_eq!(format!("{second:?}"), r#"["Host"]"#);
    }

    #[test]
    fn only_what_may_stand_in_a_name_or_a_value_does() {
        for byte in 0..=u8::MAX {
            let name = [b'x', byte];
            assert_eq!(MAY_STAND_IN_NAME[usize::from(byte)], HeaderName::from_bytes(&name).is_ok(), "{byte}");
            for place in 0..20 {
                let mut value = *b"a value of 20 letters";
                value[place] = byte;
                assert_eq!(
                    may_be_value(&value),
                    HeaderValue::from_bytes(&value).is_ok(),
                    "{byte} at {place}"
                );
            }
        }
        assert!(Fields::of([("a b", "c")]).is_err());
        assert!(Fields::of([("a", "b\r\nc: d")]).is_err_and(|fault| fault == HeadFault::Malformed));
    }
}

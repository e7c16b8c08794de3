//! Bytes in JSON: text as a string, other bytes as `{"base64":"…"}`.

use bytes::Bytes;
use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};
use std::fmt::{self, Write};

/// Bytes that are serialized as text where they are UTF-8. Both forms are read, so text may come as
/// base64.
#[derive(Clone, PartialEq, Eq)]
pub struct Octets<T = Bytes>(pub T);

impl<T> fmt::Debug for Octets<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Octets(..)")
    }
}

impl<T: AsRef<[u8]>> Serialize for Octets<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.as_ref();
        if let Ok(text) = std::str::from_utf8(bytes) {
            return to.serialize_str(text);
        }
        let mut map = to.serialize_map(Some(1))?;
        map.serialize_entry("base64", &BASE64.encode(bytes))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Visitor).map(|bytes| Self(bytes.into()))
    }
}

struct Visitor;

impl<'de> de::Visitor<'de> for Visitor {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text or {\"base64\":TEXT}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
        Ok(text.as_bytes().to_vec())
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Vec<u8>, E> {
        Ok(text.into_bytes())
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Vec<u8>, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Binary {
            base64: String,
        }
        let Binary { base64 } = Binary::deserialize(de::value::MapAccessDeserializer::new(map))?;
        BASE64.decode(base64.as_bytes()).map_err(|error| de::Error::custom(format_args!("base64: {error}")))
    }
}

impl fmt::Display for Octets {
    /// One line without tabs: control characters and backslashes are escaped as in Rust, and bytes
    /// that are not UTF-8 as `\xNN`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    c if c.is_control() => write!(f, "{}", c.escape_default())?,
                    c => f.write_char(c)?,
                }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_a_string_and_other_bytes_are_base64_and_both_are_read_back() {
        for (bytes, json) in [
            (&b""[..], r#""""#),
            (b"a\"\n\0", r#""a\"\n\u0000""#),
            ("é".as_bytes(), "\"é\""),
            (b"\xff\0", r#"{"base64":"/wA="}"#),
        ] {
            assert_eq!(serde_json::to_string(&Octets(bytes)).expect("JSON"), json);
            assert_eq!(serde_json::from_str::<Octets>(json).expect("octets").0, bytes);
        }
        assert_eq!(serde_json::from_str::<Octets>(r#"{"base64":"aGk="}"#).expect("octets").0, "hi");
    }

    #[test]
    fn anything_else_is_refused() {
        for json in [
            "1",
            "null",
            "[1,2]",
            r#"["aGk="]"#,
            "{}",
            r#"{"base64":1}"#,
            r#"{"base64":"aGk"}"#,
            r#"{"base64":"aGl="}"#,
            r#"{"base64":"-_8="}"#,
            r#"{"base64":"aGk=\n"}"#,
            r#"{"base64":"aGk=","base64":"aGk="}"#,
            r#"{"base64":"aGk=","more":1}"#,
            r#"{"hex":"00"}"#,
            r#""\ud800""#,
        ] {
            assert!(serde_json::from_str::<Octets>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_line_shows_every_byte() {
        let shown = Octets(Bytes::from_static("a\tb\n\\é\u{1}".as_bytes())).to_string();
        assert_eq!(shown, "a\\tb\\n\\\\é\\u{1}");
        assert_eq!(Octets(Bytes::from_static(b"a\xff\x00z")).to_string(), "a\\xff\\u{0}z");
    }
}

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, Visitor},
};
use weir_schemas::PROPS_MAX;

/// A hit as somebody sent it: read, but not yet checked. Every interface makes one; the fields are those of
/// `POST /v1/events`, and one that was not sent is empty. Unknown fields are passed over.
///
/// Strings without escapes are borrowed from the body.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub struct Hit<'a> {
    pub site: Text<'a>,
    pub url: Text<'a>,
    pub referrer: Text<'a>,
    pub kind: Text<'a>,
    pub name: Text<'a>,
    pub target: Text<'a>,
    pub time: Time<'a>,
    pub id: Text<'a>,
    pub title: Text<'a>,
    pub props: Props<'a>,
    pub screen: Text<'a>,
    pub language: Text<'a>,
    pub ip: Text<'a>,
    pub user_agent: Text<'a>,
}

/// A string; `null` is an empty one.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Text<'a>(pub Cow<'a, str>);

/// When it happened, as it was claimed.
#[derive(Debug, Default, Clone, PartialEq)]
pub enum Time<'a> {
    #[default]
    NotSaid,
    /// Since the Unix epoch.
    Ms(i64),
    /// RFC 3339, if it is right.
    Text(Text<'a>),
    /// A number that no time has.
    OutOfRange,
}

/// Properties in the order given; of equal names the last value counts.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Props<'a> {
    /// At most [`PROPS_MAX`].
    pub pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// There were more.
    pub too_many: bool,
}

impl std::ops::Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'a, T: Into<Cow<'a, str>>> From<T> for Text<'a> {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl<'a> Props<'a> {
    /// Adds one; an empty value says nothing.
    fn add(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) {
        if value.is_empty() {
            return;
        }
        if let Some(pair) = self.pairs.iter_mut().find(|pair| pair.0 == name) {
            pair.1 = value;
        } else if self.pairs.len() < PROPS_MAX {
            self.pairs.push((name, value));
        } else {
            self.too_many = true;
        }
    }

    /// Takes the value of `name` out.
    pub fn take(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let at = self.pairs.iter().position(|pair| pair.0 == name)?;
        Some(self.pairs.remove(at).1)
    }

    fn into_owned(self) -> Props<'static> {
        let own = |text: Cow<'a, str>| Cow::Owned(text.into_owned());
        Props { pairs: self.pairs.into_iter().map(|(n, v)| (own(n), own(v))).collect(), too_many: self.too_many }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Of<'a> {
            type Value = Text<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'a>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'a>, E> {
                Ok(Text(Cow::Owned(text.into())))
            }
            fn visit_unit<E>(self) -> Result<Text<'a>, E> {
                Ok(Text::default())
            }
        }
        deserializer.deserialize_any(Of(std::marker::PhantomData))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Time<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Of<'a> {
            type Value = Time<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time: RFC 3339 or ms since the Unix epoch")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Time<'a>, E> {
                Ok(Time::Text(text.into()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Time<'a>, E> {
                Ok(Time::Text(text.to_owned().into()))
            }
            fn visit_i64<E>(self, ms: i64) -> Result<Time<'a>, E> {
                Ok(Time::Ms(ms))
            }
            fn visit_u64<E>(self, ms: u64) -> Result<Time<'a>, E> {
                Ok(i64::try_from(ms).map_or(Time::OutOfRange, Time::Ms))
            }
            fn visit_f64<E>(self, ms: f64) -> Result<Time<'a>, E> {
                // Below 2^53 a float still holds every millisecond.
                Ok(if ms.abs() < 9e15 { Time::Ms(ms.floor() as i64) } else { Time::OutOfRange })
            }
            fn visit_unit<E>(self) -> Result<Time<'a>, E> {
                Ok(Time::NotSaid)
            }
        }
        deserializer.deserialize_any(Of(std::marker::PhantomData))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Props<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Of<'a> {
            type Value = Props<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of properties")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Props<'a>, A::Error> {
                let mut props = Props::default();
                while let Some(name) = map.next_key::<Text<'a>>()? {
                    if props.too_many {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        let value = map.next_value::<Scalar<'a>>()?;
                        props.add(name.0, value.0);
                    }
                }
                Ok(props)
            }
            /// Old trackers send the object as a string.
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Props<'a>, E> {
                serde_json::from_str::<Props<'_>>(text).map(Props::into_owned).map_err(E::custom)
            }
            fn visit_unit<E>(self) -> Result<Props<'a>, E> {
                Ok(Props::default())
            }
        }
        deserializer.deserialize_any(Of(std::marker::PhantomData))
    }
}

/// A property's value: a string, a number or a truth, all kept as text.
struct Scalar<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Of<'a> {
            type Value = Scalar<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a number or true or false")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Scalar<'a>, E> {
                Ok(Scalar(text.into()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Scalar<'a>, E> {
                Ok(Scalar(text.to_owned().into()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Scalar<'a>, E> {
                Ok(Scalar(number.to_string().into()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Scalar<'a>, E> {
                Ok(Scalar(number.to_string().into()))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Scalar<'a>, E> {
                Ok(Scalar(number.to_string().into()))
            }
            fn visit_bool<E>(self, truth: bool) -> Result<Scalar<'a>, E> {
                Ok(Scalar(if truth { "true" } else { "false" }.into()))
            }
            fn visit_unit<E>(self) -> Result<Scalar<'a>, E> {
                Ok(Scalar("".into()))
            }
        }
        deserializer.deserialize_any(Of(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(json: &str) -> Hit<'_> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn strings_are_borrowed_and_null_is_nothing() {
        let hit = hit(r#"{"site":"a","url":"x\ny","referrer":null,"unknown":{"a":[1]}}"#);
        assert!(matches!(hit.site.0, Cow::Borrowed("a")));
        assert_eq!((&*hit.url, &*hit.referrer, &*hit.title), ("x\ny", "", ""));
    }

    #[test]
    fn times_come_as_text_or_numbers() {
        let time = |json: &str| serde_json::from_str::<Time<'_>>(json).map(|time| format!("{time:?}")).ok();
        assert_eq!(time("1431857100000").unwrap(), "Ms(1431857100000)");
        assert_eq!(time("-1").unwrap(), "Ms(-1)");
        assert_eq!(time("1431857100000.7").unwrap(), "Ms(1431857100000)");
        assert_eq!(time("1e300").unwrap(), "OutOfRange");
        assert_eq!(time("18446744073709551615").unwrap(), "OutOfRange");
        assert_eq!(time("null").unwrap(), "NotSaid");
        assert!(time("\"2015-05-17\"").unwrap().starts_with("Text"));
        assert_eq!(time("[]"), None);
    }

    #[test]
    fn properties_are_scalars_and_the_last_of_a_name_counts() {
        let mut hit = hit(r#"{"props":{"a":"x","b":1.5,"c":true,"d":null,"e":-7,"a":"y"}}"#);
        let pairs: Vec<_> = hit.props.pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(pairs, ["a=y", "b=1.5", "c=true", "e=-7"]);
        assert_eq!(hit.props.take("b").unwrap(), "1.5");
        assert_eq!(hit.props.take("b"), None);
        assert!(serde_json::from_str::<Hit<'_>>(r#"{"props":{"a":{}}}"#).is_err());
    }

    #[test]
    fn properties_may_come_as_a_string_of_json() {
        assert_eq!(hit(r#"{"props":"{\"a\":\"x\"}"}"#).props, hit(r#"{"props":{"a":"x"}}"#).props);
    }

    #[test]
    fn too_many_properties_cost_no_memory() {
        let many: Vec<String> = (0..10_000).map(|n| format!("\"p{n}\":1")).collect();
        let json = format!("{{\"props\":{{{}}}}}", many.join(","));
        let props = hit(&json).props;
        assert!(props.too_many && props.pairs.len() == PROPS_MAX);
    }
}

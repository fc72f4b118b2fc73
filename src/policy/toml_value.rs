use serde_json::{Map, Number, Value};

/// A value of TOML as one of JSON: dates and times are texts, as in RFC 3339.
///
/// serde would make a table of a date, and nothing of a number that JSON does not have: neither is ever equal to what was meant.
pub(crate) fn json(value: &toml::Value) -> Result<Value, String> {
    Ok(match value {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => match Number::from_f64(*number) {
            Some(number) => Value::Number(number),
            None => return Err(format!("{number} is no number that can be compared")),
        },
        toml::Value::Boolean(truth) => (*truth).into(),
        toml::Value::Datetime(date) => date.to_string().into(),
        toml::Value::Array(values) => Value::Array(values.iter().map(json).collect::<Result<_, _>>()?),
        toml::Value::Table(fields) => {
            let fields = fields.iter().map(|(name, value)| Ok((name.clone(), json(value)?)));
            Value::Object(fields.collect::<Result<Map<_, _>, String>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::json as of;

    #[test]
    fn each_kind_of_value() {
        let table: toml::Value = toml::from_str(
            r#"
            text = "2026-01-01"
            whole = -7
            part = 1.5
            truth = true
            day = 2026-01-01
            hour = 08:30:00
            moment = 2026-01-01T08:30:00Z
            there = 2026-01-01T08:30:00.5+02:00
            here = 2026-01-01T08:30:00
            list = [2026-01-01, [1, { day = 2026-01-02 }]]
            "#,
        )
        .unwrap();
        let expected = json!({
            "text": "2026-01-01",
            "whole": -7,
            "part": 1.5,
            "truth": true,
            "day": "2026-01-01",
            "hour": "08:30:00",
            "moment": "2026-01-01T08:30:00Z",
            "there": "2026-01-01T08:30:00.5+02:00",
            "here": "2026-01-01T08:30:00",
            "list": ["2026-01-01", [1, { "day": "2026-01-02" }]],
        });
        assert_eq!(of(&table), Ok(expected));
        for bad in ["nan", "inf", "-inf", "[1.0, nan]", "{ a = { b = [inf] } }"] {
            let table: toml::Value = toml::from_str(&format!("x = {bad}")).unwrap();
            assert!(of(&table).unwrap_err().contains("no number"), "{bad}");
        }
    }
}

"""Prints what is wrong with the JSON document on standard input by the schema in the file SCHEMA, or nothing."""

import json
import sys

import jsonschema

with open(sys.argv[1], encoding="utf-8") as file:
    schema = json.load(file)
jsonschema.Draft202012Validator.check_schema(schema)
for error in jsonschema.Draft202012Validator(schema).iter_errors(json.load(sys.stdin)):
    print(error.json_path, error.message, *(cause.message for cause in error.context))

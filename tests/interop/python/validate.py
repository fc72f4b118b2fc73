"""Prints what is wrong with the JSON document on standard input by the schema in the file SCHEMA, or nothing."""

import json
import sys

import jsonschema

with open(sys.argv[1], encoding="utf-8") as file:
    schema = json.load(file)
jsonschema.Draft202012Validator.check_schema(schema)


def told(error):
    """What is wrong, and within it what is wrong with each way in which it could be right."""
    yield error.message
    for cause in error.context:
        yield from told(cause)


for error in jsonschema.Draft202012Validator(schema).iter_errors(json.load(sys.stdin)):
    print(error.json_path, *told(error))

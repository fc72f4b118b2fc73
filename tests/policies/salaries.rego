package httpapi.authz

# Bob is Alice's manager, and Betty is Charlie's.
subordinates := {"alice": [], "charlie": [], "bob": ["alice"], "betty": ["charlie"]}

default allow := false

# Everybody sees their own salary.
allow if {
	input.method == "GET"
	input.resource == {"type": "salary", "id": input.subject.id, "attributes": {}}
}

# Managers see those of their subordinates.
allow if {
	some username in subordinates[input.subject.id]
	input.method == "GET"
	input.resource.type == "salary"
	input.resource.id == username
}

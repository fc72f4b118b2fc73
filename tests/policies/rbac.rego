package rbac.authz

# Who has which roles.
user_roles := {
	"alice": ["engineering", "webdev"],
	"bob": ["hr"],
}

# Which role may do what.
role_permissions := {
	"engineering": [{"action": "read", "object": "server123"}],
	"webdev": [
		{"action": "read", "object": "server123"},
		{"action": "write", "object": "server123"},
	],
	"hr": [{"action": "read", "object": "database456"}],
}

default allow := false

allow if {
	some role in user_roles[input.subject.id]
	some permission in role_permissions[role]
	permission == {"action": input.action, "object": input.resource.id}
}

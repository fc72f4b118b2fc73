package httpapi.authz

# The human resources see all salaries.
allow if {
	input.method == "GET"
	input.resource.type == "salary"
	input.subject.id in data.hr
}

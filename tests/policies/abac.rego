package abac

user_attributes := {
	"alice": {"tenure": 15, "title": "trader"},
	"bob": {"tenure": 5, "title": "analyst"},
	"carol": {"tenure": 2, "title": "trader"},
}

ticker_attributes := {
	"MSFT": {"exchange": "NASDAQ", "price": 59.20},
	"AMZN": {"exchange": "NASDAQ", "price": 813.64},
}

default allow := false

# Traders buy at NASDAQ for under two millions.
allow if {
	user := user_attributes[input.subject.id]
	user.title == "trader"
	ticker_attributes[input.resource.id].exchange == "NASDAQ"
	input.attributes.amount <= 2000000
}

# Traders of more than ten years buy there for under five millions.
allow if {
	user := user_attributes[input.subject.id]
	user.title == "trader"
	ticker_attributes[input.resource.id].exchange == "NASDAQ"
	user.tenure > 10
	input.attributes.amount <= 5000000
}

module s1vl.io/hack/pause

go 1.26.0

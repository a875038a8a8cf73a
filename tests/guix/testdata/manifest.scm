(specifications->manifest '("tiny" "small@1.0"))

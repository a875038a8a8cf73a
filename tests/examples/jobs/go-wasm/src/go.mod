module example.org/linecount

go 1.26

module stepwell/adapter

go 1.24

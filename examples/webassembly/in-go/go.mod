module checksum

go 1.24

# A small network of its own: many accounts have no default one any more, and `destroy` leaves nothing of this one.

locals {
  ports = {
    22   = "SSH"
    3000 = "Grafana"
    5000 = "MLflow"
    8000 = "API"
    9090 = "Prometheus"
  }

  lambda_to_api = var.lambda_enabled && var.lambda_target == "api"
}

# Not every zone of a region has every machine.
data "aws_ec2_instance_type_offerings" "node" {
  location_type = "availability-zone"

  filter {
    name   = "instance-type"
    values = [var.instance_type]
  }
}

resource "aws_vpc" "main" {
  cidr_block           = "10.42.0.0/24"
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = { Name = "mlops" }
}

# Whatever is started without a group of its own can talk to nobody.
resource "aws_default_security_group" "closed" {
  vpc_id = aws_vpc.main.id
}

resource "aws_subnet" "main" {
  vpc_id            = aws_vpc.main.id
  cidr_block        = "10.42.0.0/25"
  availability_zone = sort(data.aws_ec2_instance_type_offerings.node.locations)[0]
  tags              = { Name = "mlops" }

  lifecycle {
    # A zone that joins the list later must not move the node.
    ignore_changes = [availability_zone]
  }
}

resource "aws_internet_gateway" "main" {
  vpc_id = aws_vpc.main.id
  tags   = { Name = "mlops" }
}

resource "aws_route_table" "main" {
  vpc_id = aws_vpc.main.id
  tags   = { Name = "mlops" }
}

resource "aws_route" "internet" {
  route_table_id         = aws_route_table.main.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.main.id
}

resource "aws_route_table_association" "main" {
  subnet_id      = aws_subnet.main.id
  route_table_id = aws_route_table.main.id
}

# Costs nothing, keeps the bucket's traffic inside AWS, and is how a function in this network reaches the bucket at all.
resource "aws_vpc_endpoint" "s3" {
  vpc_id            = aws_vpc.main.id
  service_name      = "com.amazonaws.${var.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [aws_route_table.main.id]
  tags              = { Name = "mlops-s3" }
}

resource "aws_security_group" "node" {
  name        = "mlops-core"
  description = "The node: its operator comes in, web requests go out"
  vpc_id      = aws_vpc.main.id
  tags        = { Name = "mlops-core" }
}

resource "aws_vpc_security_group_ingress_rule" "operator" {
  for_each = local.ports

  security_group_id = aws_security_group.node.id
  description       = "${each.value}, from the operator alone"
  cidr_ipv4         = var.my_ip_cidr
  ip_protocol       = "tcp"
  from_port         = each.key
  to_port           = each.key
}

resource "aws_vpc_security_group_ingress_rule" "lambda" {
  count = local.lambda_to_api ? 1 : 0

  security_group_id            = aws_security_group.node.id
  description                  = "The API, from the stream's function"
  referenced_security_group_id = aws_security_group.lambda.id
  ip_protocol                  = "tcp"
  from_port                    = 8000
  to_port                      = 8000
}

# Packages, images, the repository and AWS itself; Ubuntu's mirrors speak HTTP, and packages are signed.
resource "aws_vpc_security_group_egress_rule" "web" {
  for_each = toset(["80", "443"])

  security_group_id = aws_security_group.node.id
  description       = "Web requests"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = each.key
  to_port           = each.key
}

resource "aws_security_group" "lambda" {
  name        = "mlops-lambda"
  description = "The function between the stream and the scorer"
  vpc_id      = aws_vpc.main.id
  tags        = { Name = "mlops-lambda" }
}

resource "aws_vpc_security_group_egress_rule" "lambda_to_bucket" {
  security_group_id = aws_security_group.lambda.id
  description       = "The bucket, for dead letters"
  prefix_list_id    = aws_vpc_endpoint.s3.prefix_list_id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "lambda_to_api" {
  count = local.lambda_to_api ? 1 : 0

  security_group_id            = aws_security_group.lambda.id
  description                  = "The API"
  referenced_security_group_id = aws_security_group.node.id
  ip_protocol                  = "tcp"
  from_port                    = 8000
  to_port                      = 8000
}

# The function has no way to the internet, so the one service that it asks needs a door in this network. It bills by
# the hour, and is there only while Lambda reads the stream.
resource "aws_vpc_endpoint" "asked_by_lambda" {
  count = var.lambda_enabled ? 1 : 0

  vpc_id              = aws_vpc.main.id
  service_name        = "com.amazonaws.${var.region}.${var.lambda_target == "api" ? "secretsmanager" : "sagemaker.runtime"}"
  vpc_endpoint_type   = "Interface"
  subnet_ids          = [aws_subnet.main.id]
  security_group_ids  = [aws_security_group.door[0].id]
  private_dns_enabled = true
  tags                = { Name = "mlops-lambda" }
}

# The node finds the same door under the service's name, so it must be let in too.
resource "aws_security_group" "door" {
  count = var.lambda_enabled ? 1 : 0

  name        = "mlops-door"
  description = "The service that the function asks"
  vpc_id      = aws_vpc.main.id
  tags        = { Name = "mlops-door" }
}

resource "aws_vpc_security_group_ingress_rule" "door" {
  for_each = var.lambda_enabled ? { lambda = aws_security_group.lambda.id, node = aws_security_group.node.id } : {}

  security_group_id            = aws_security_group.door[0].id
  description                  = "From the ${each.key}"
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

resource "aws_vpc_security_group_egress_rule" "lambda_to_door" {
  count = var.lambda_enabled ? 1 : 0

  security_group_id            = aws_security_group.lambda.id
  description                  = "The service that it asks"
  referenced_security_group_id = aws_security_group.door[0].id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

# Who was turned away, and from where; what was let in would cost more than it tells.
resource "aws_flow_log" "refused" {
  vpc_id          = aws_vpc.main.id
  traffic_type    = "REJECT"
  log_destination = aws_cloudwatch_log_group.flow.arn
  iam_role_arn    = aws_iam_role.flow.arn
}

resource "aws_cloudwatch_log_group" "flow" {
  name              = "/mlops/refused-traffic"
  retention_in_days = 365
  kms_key_id        = aws_kms_key.main.arn
}

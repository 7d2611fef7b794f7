# The node mlops-core: one machine with the whole stack, made by infra/bootstrap.sh.

data "aws_ami" "ubuntu" {
  most_recent = true
  owners      = ["099720109477"] # Canonical

  filter {
    name   = "name"
    values = ["ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-amd64-server-*"]
  }

  filter {
    name   = "virtualization-type"
    values = ["hvm"]
  }
}

locals {
  # Every value is a word of a pattern or made by AWS; quoted all the same, so that no shell can read more into it.
  node_environment = {
    REPOSITORY_URL = var.repository_url
    REVISION       = var.repository_revision
    REGION         = var.region
    PUBLIC_ADDRESS = aws_eip.node.public_ip
    BUCKET         = aws_s3_bucket.data.bucket
    TOPIC_ARN      = aws_sns_topic.alerts.arn
  }
  user_data = join("\n", [
    "#!/usr/bin/env bash",
    join("\n", [for name, value in local.node_environment : "export ${name}='${replace(value, "'", "'\\''")}'"]),
    file("${path.module}/../infra/bootstrap.sh"),
  ])
}

resource "aws_key_pair" "operator" {
  count = var.ssh_public_key == null ? 0 : 1

  key_name   = "mlops-operator"
  public_key = var.ssh_public_key
}

# An address that stays: the URLs survive a stop, and MLflow can be told by which name it is asked.
resource "aws_eip" "node" {
  domain = "vpc"
  tags   = { Name = "mlops-core" }
}

# It comes a moment after the machine runs; the first boot tries again until it is there.
resource "aws_eip_association" "node" {
  allocation_id = aws_eip.node.id
  instance_id   = aws_instance.core.id
}

resource "aws_instance" "core" {
  ami                    = data.aws_ami.ubuntu.id
  instance_type          = var.instance_type
  subnet_id              = aws_subnet.main.id
  vpc_security_group_ids = [aws_security_group.node.id]
  iam_instance_profile   = aws_iam_instance_profile.node.name
  key_name               = one(aws_key_pair.operator[*].key_name)
  ebs_optimized          = true
  monitoring             = true

  # User data runs once, at the first boot. Replacing the node for a changed line would throw away the databases on its
  # disk; an update is infra/bootstrap.sh by hand, and a new node is `apply -replace=aws_instance.core`.
  user_data                   = local.user_data
  user_data_replace_on_change = false

  metadata_options {
    http_tokens = "required"
    # A container is one hop further away than the machine, and needs the role's credentials too.
    http_put_response_hop_limit = 2
  }

  root_block_device {
    volume_size = 30
    volume_type = "gp3"
    encrypted   = true
    tags        = { Name = "mlops-core" }
  }

  tags = { Name = "mlops-core" }

  lifecycle {
    # A newer image of Ubuntu, or another line in the script, is no reason to stop or replace a node that holds data.
    ignore_changes = [ami, user_data]

    precondition {
      condition     = length(local.user_data) < 16384
      error_message = "the user data has ${length(local.user_data)} bytes, and EC2 takes 16,383; shorten infra/bootstrap.sh."
    }
  }

  depends_on = [aws_route.internet, aws_route_table_association.main]
}
